"""The score stage: every answer judged for safety and helpfulness, by scorers or by any function."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rheostat_server.scorers import UNJUDGED, Dialogue, Scores
from rheostat_server.scorers.classifier import Classifier, check_one_output
from rheostat_server.scorers.text.folder import SCORER_FILE, TextScorerKind, check_whole
from rheostat_server.scorers.text.text_scorer import TextScorer
from rheostat_training.progress import Progress, Task
from rheostat_training.resume import claim, rows_digest
from rheostat_training.rows import Prompt, Sample, Scored, prompt_of, read_rows, write_rows

SHARD_ROWS = 1024


class Judge(Protocol):
    """Scores dialogues, in their order."""

    def judge(self, dialogues: Sequence[Dialogue]) -> list[Scores]: ...


@dataclass(frozen=True, slots=True)
class CallableJudge:
    """A judge made of a function of prompt text and answer that gives (safety, helpfulness) or None."""

    levels: Callable[[str, str], tuple[float, float] | None]

    def judge(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        return [self._one(dialogue) for dialogue in dialogues]

    def _one(self, dialogue: Dialogue) -> Scores:
        found = self.levels(dialogue.question, dialogue.answer)
        return Scores(*found) if found else UNJUDGED


class LevelScorer(Protocol):
    """Gives levels in [0, 1], in the order of the dialogues; None where it could not judge."""

    def levels(self, dialogues: Sequence[Dialogue]) -> Sequence[float | None]: ...


def load_scorer(folder: Path, *, batch_rows: int = 128, device: str = "cpu") -> LevelScorer:
    """The scorer of a folder: one of real text where it holds `scorer.json`, else a sequence-classification model.

    Raises:
        ValueError: the model has several labels, or no token to pad with.
    """
    if (folder / SCORER_FILE).exists():
        return TextScorer.load(folder, batch_rows=batch_rows, device=device)
    check_one_output(folder)
    return Classifier.load(folder, batch_rows=batch_rows, device=device)


def check_helpfulness(kind: TextScorerKind | None) -> None:
    """Raises ValueError for a kind of scorer whose level falls as an answer helps more."""
    if kind == "refusal":
        raise ValueError(
            "helpfulness is given a scorer of kind refusal, whose level 1 is a full refusal: the dial would turn the "
            "wrong way; give a preference scorer or another model of helpfulness (a refusal scorer may read safety)"
        )


def check_scorer(folder: Path) -> None:
    """Whether `load_scorer` takes a folder, as far as its small files tell.

    Raises:
        ValueError, OSError: it does not; the message says why.
    """
    if (folder / SCORER_FILE).exists():
        check_whole(folder)
    else:
        check_one_output(folder)


@dataclass(frozen=True, slots=True)
class ScorerPair:
    """A judge made of two scorers. An empty answer cannot be judged.

    Raises:
        ValueError: helpfulness is to be read by a refusal scorer, whose level 1 is a full refusal.
    """

    safety: LevelScorer
    helpfulness: LevelScorer

    def __post_init__(self) -> None:
        if isinstance(self.helpfulness, TextScorer):
            check_helpfulness(self.helpfulness.kind)

    @classmethod
    def load(cls, safety: Path, helpfulness: Path, *, batch_rows: int = 128, device: str = "cpu") -> "ScorerPair":
        return cls(
            load_scorer(safety, batch_rows=batch_rows, device=device),
            load_scorer(helpfulness, batch_rows=batch_rows, device=device),
        )

    def judge(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        places = [position for position, dialogue in enumerate(dialogues) if dialogue.is_answered]
        asked = [dialogues[position] for position in places]
        result = [UNJUDGED] * len(dialogues)
        levels = zip(self.safety.levels(asked), self.helpfulness.levels(asked), strict=True)
        for position, (safety, helpfulness) in zip(places, levels, strict=True):
            result[position] = Scores(safety, helpfulness)
        return result


def score(
    judge: Judge,
    prompts: Mapping[str, Prompt],
    samples: Iterable[Sample],
    out: Path,
    *,
    judge_name: str,
    progress: Progress | None = None,
) -> Path:
    """Scores samples into `out/scored.jsonl`, one distinct answer a prompt and its dials, resumable shard by shard.

    Of equal answers the one with the greatest `least` is kept: what was given surely once is no slip.

    Raises:
        AnotherRun: `out` holds the scores of other samples, of other prompts or of another judge.
    """
    result = out / "scored.jsonl"
    rows = _distinct(samples)
    known = rows_digest(prompts.values())
    claim(out, {"stage": "score", "judge": judge_name, "samples": rows_digest(rows), "prompts": known})
    if result.exists():
        return result
    shards: list[Path] = []
    with (progress or Progress.auto()).task("score", len(rows), unit="answers") as task:
        for start in range(0, len(rows), SHARD_ROWS):
            chunk = rows[start : start + SHARD_ROWS]
            shards.append(out / "shards" / f"{start // SHARD_ROWS:05d}.jsonl")
            if shards[-1].exists():
                task.skip(len(chunk))
            else:
                write_rows(shards[-1], judged(judge, prompts, chunk))
                task.advance(len(chunk))
    return write_rows(result, (row for shard in shards for row in read_rows(shard, Scored)))


def _distinct(samples: Iterable[Sample]) -> list[Sample]:
    surest: dict[tuple[object, ...], Sample] = {}
    for row in samples:
        before = surest.setdefault((row.prompt_id, row.answer, row.dials), row)
        if _sureness(row) > _sureness(before):
            surest[row.prompt_id, row.answer, row.dials] = row
    return list(surest.values())


def _sureness(row: Sample) -> float:
    """Its least probability; where the engine does not tell, nothing speaks against it."""
    return math.inf if row.least is None else row.least


@dataclass(frozen=True, slots=True)
class ShownJudge:
    """A judge whose work moves a task on."""

    asked: Judge
    task: Task

    def judge(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        found: list[Scores] = []
        for start in range(0, len(dialogues), SHARD_ROWS):
            found += self.asked.judge(dialogues[start : start + SHARD_ROWS])
            self.task.advance(len(found) - start)
        return found


def judged(judge: Judge, prompts: Mapping[str, Prompt], samples: Sequence[Sample]) -> list[Scored]:
    """Samples with their scores."""
    scores = judge.judge([Dialogue(prompt_of(prompts, row.prompt_id).messages, row.answer) for row in samples])
    return [
        Scored(row.prompt_id, row.answer, score.safety, score.helpfulness, row.dials, row.least)
        for row, score in zip(samples, scores, strict=True)
    ]
