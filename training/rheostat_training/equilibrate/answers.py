"""What a model said to grouped prompts, judged: the candidates that pairs are made of, and the answers measured."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rheostat_server.scorers import Dialogue
from rheostat_training.config import BadConfig
from rheostat_training.equilibrate.measure import Answered
from rheostat_training.equilibrate.pairs import Candidate
from rheostat_training.rows import Prompt, Sample, prompt_of
from rheostat_training.score import Judge
from rheostat_training.scorers.string_matching import FULL_REFUSAL, matched
from rheostat_training.sources import ORACLE

Refuses = Callable[[Sequence[Dialogue]], list[bool]]
"""Which answers decline what was asked; for the demo's oracle an evasion that gives nothing of it does too."""
PHRASES: Final = "phrases"
DEMO_ORACLE: Final = "demo-oracle"


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """An answer with its levels in [0, 1], None where a scorer could not judge, and whether it refuses."""

    prompt_id: str
    answer: str
    safety: float | None
    helpfulness: float | None
    refuses: bool


def judge_answers(
    judge: Judge, refuses: Refuses, prompts: Mapping[str, Prompt], samples: Sequence[Sample]
) -> list[JudgedAnswer]:
    """Every sample with its levels; one that did not come to its end is not judged."""
    dialogues = [Dialogue(prompt_of(prompts, row.prompt_id).messages, row.answer) for row in samples]
    whole = [number for number, row in enumerate(samples) if row.finished]
    scores = dict(zip(whole, judge.judge([dialogues[number] for number in whole]), strict=True))
    return [
        JudgedAnswer(
            row.prompt_id,
            row.answer,
            scores[number].safety if number in scores else None,
            scores[number].helpfulness if number in scores else None,
            refused,
        )
        for number, (row, refused) in enumerate(zip(samples, refuses(dialogues), strict=True))
    ]


def candidates(rows: Sequence[JudgedAnswer]) -> dict[str, list[Candidate]]:
    """Those that could be judged, by their prompt."""
    found: defaultdict[str, list[Candidate]] = defaultdict(list)
    for row in rows:
        if row.safety is not None and row.helpfulness is not None:
            found[row.prompt_id].append(Candidate(row.answer, row.safety, row.helpfulness, row.refuses))
    return dict(found)


def answered(rows: Sequence[JudgedAnswer], kinds: Mapping[str, str]) -> list[Answered]:
    """The answers as `measure` takes them; `kinds` are those of the prompts, by id."""
    return [Answered(row.prompt_id, kinds[row.prompt_id], row.safety, row.helpfulness, row.refuses) for row in rows]


def refusals_by(source: str, *, batch_rows: int = 128, device: str = "cpu") -> tuple[Refuses, str]:
    """What tells refusals, and its digest: "demo-oracle", "phrases", or the folder of a refusal scorer.

    Raises:
        BadConfig: it is none of these.
    """
    if source == PHRASES:
        return lambda asked: [label == FULL_REFUSAL for label in matched([each.answer for each in asked])], PHRASES
    if source == DEMO_ORACLE:
        from rheostat_training.demo import oracle

        return lambda asked: [oracle.declines(each.question, each.answer) for each in asked], ORACLE
    return _by_scorer(source, batch_rows, device)


def _by_scorer(source: str, batch_rows: int, device: str) -> tuple[Refuses, str]:
    from pathlib import Path

    from rheostat_server.scorers.text.text_scorer import TextScorer
    from rheostat_training.stage import tree_digest

    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise BadConfig(f"judge.refusals is {source!r}; it must be demo-oracle, phrases, or a refusal scorer's folder")
    scorer = TextScorer.load(folder, batch_rows=batch_rows, device=device)
    if scorer.kind != "refusal":
        raise BadConfig(f"judge.refusals is {source!r}, a scorer of kind {scorer.kind}; it must be one of kind refusal")

    def refuses(asked: Sequence[Dialogue]) -> list[bool]:
        return [level is not None and level >= 0.5 for level in scorer.levels(asked)]

    return refuses, tree_digest(folder)
