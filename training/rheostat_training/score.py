"""The score stage: every answer judged for safety and helpfulness, by scorers or by any function."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from rheostat_training.progress import Progress, Task
from rheostat_training.resume import claim, rows_digest
from rheostat_training.rows import Dialogue as Dialogue
from rheostat_training.rows import Prompt, Sample, Scored, prompt_of, read_rows, write_rows
from rheostat_training.scorer_text import dialogue_ids, pad_right, pair_ids
from rheostat_training.scorers.text_scorer import (
    ENCODER_FOLDER,
    HEAD_FILE,
    NGRAMS_FILE,
    SCORER_FILE,
    TextScorer,
    TextScorerKind,
)

SHARD_ROWS = 1024
TEXT_SCORER_PARTS = (ENCODER_FOLDER, HEAD_FILE, NGRAMS_FILE)


@dataclass(frozen=True, slots=True)
class Scores:
    """Levels in [0, 1]; None where the judge could not judge, which is never a level of 0."""

    safety: float | None
    helpfulness: float | None


UNJUDGED = Scores(None, None)


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
        found = self.levels(Prompt("", dialogue.messages).text, dialogue.answer)
        return Scores(*found) if found else UNJUDGED


@dataclass(frozen=True, slots=True)
class Scorer:
    """A sequence-classification model of one label; level = sigmoid(logit).

    It reads the conversation and its answer by its own chat template; one that has none, as most cross-encoders, reads
    the last question and the answer as a pair of texts.
    """

    model: Any
    tokenizer: Any
    batch_rows: int = 128

    @classmethod
    def load(cls, folder: Path, *, batch_rows: int = 128, device: str = "cpu") -> "Scorer":
        """Raises ValueError if it has several labels or no token to pad with."""
        model = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
        _check_settings(folder, model.config)
        return cls(model, AutoTokenizer.from_pretrained(folder), batch_rows)

    @torch.inference_mode()
    def levels(self, dialogues: Sequence[Dialogue]) -> list[float]:
        """Levels of dialogues, read in batches of like length."""
        read = self._read(dialogues)
        order = sorted(range(len(read)), key=lambda position: len(read[position][0]))
        result = [0.0] * len(read)
        for start in range(0, len(order), self.batch_rows):
            chunk = order[start : start + self.batch_rows]
            logits = self._logits([read[position] for position in chunk])
            for position, level in zip(chunk, torch.sigmoid(logits.float()).tolist(), strict=True):
                result[position] = level
        return result

    def _read(self, dialogues: Sequence[Dialogue]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Ids and token types of each dialogue."""
        longest = min(self._places, self.tokenizer.model_max_length)
        if self.tokenizer.chat_template is None:
            pairs = [(Prompt("", dialogue.messages).text, dialogue.answer) for dialogue in dialogues]
            return pair_ids(self.tokenizer, pairs, max_length=longest)
        ids = dialogue_ids(
            self.tokenizer, [(dialogue.messages, dialogue.answer) for dialogue in dialogues], max_length=longest
        )
        return [(row, (0,) * len(row)) for row in ids]

    def _logits(self, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> torch.Tensor:
        tokens, mask = pad_right([ids for ids, _ in rows], self.model.config.get_text_config().pad_token_id)
        more = {"token_type_ids": pad_right([types for _, types in rows], 0)[0]} if self._typed else {}
        inputs = {"input_ids": tokens, "attention_mask": mask, **more}
        logits: torch.Tensor = self.model(
            **{name: value.to(self.model.device) for name, value in inputs.items()}
        ).logits
        return logits[:, 0]

    @property
    def _places(self) -> int:
        """How many tokens have a position. RoBERTa's kind counts from behind that of the token that pads."""
        places: int = self.model.config.get_text_config().max_position_embeddings
        tables = (module for name, module in self.model.named_modules() if name.endswith("position_embeddings"))
        padding = next((table.padding_idx for table in tables if isinstance(table, torch.nn.Embedding)), None)
        return places if padding is None else places - padding - 1

    @property
    def _typed(self) -> bool:
        return "token_type_ids" in signature(self.model.forward).parameters


def _check_settings(folder: Path, config: Any) -> None:
    if config.num_labels != 1:
        raise ValueError(f"{folder} has {config.num_labels} labels; a scorer has 1, the level's logit")
    if config.get_text_config().pad_token_id is None:
        raise ValueError(f"{folder} names no pad_token_id in its config.json; answers of several lengths need one")


class LevelScorer(Protocol):
    """Gives levels in [0, 1], in the order of the dialogues."""

    def levels(self, dialogues: Sequence[Dialogue]) -> list[float]: ...


def load_scorer(folder: Path, *, batch_rows: int = 128, device: str = "cpu") -> LevelScorer:
    """The scorer of a folder: one of real text where it holds `scorer.json`, else a sequence-classification model."""
    if (folder / SCORER_FILE).exists():
        return TextScorer.load(folder, batch_rows=batch_rows, device=device)
    return Scorer.load(folder, batch_rows=batch_rows, device=device)


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
        if missing := [name for name in TEXT_SCORER_PARTS if not (folder / name).exists()]:
            raise ValueError(f"{folder} has {SCORER_FILE} and no {', '.join(missing)}; train the scorer again")
    else:
        _check_settings(folder, AutoConfig.from_pretrained(folder))


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
        places = [position for position, dialogue in enumerate(dialogues) if dialogue.answer.strip()]
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
