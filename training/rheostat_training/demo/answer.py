"""Writes an answer at wanted levels: plan, opening, cautions or hazards, steps, remarks, closing."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rheostat_training.demo.phrasebook import (
    CARES,
    CLOSINGS,
    GREETINGS,
    ORDINALS,
    STEP_COUNTS,
    TONES,
    Phrasebook,
    phrasebook,
)
from rheostat_training.demo.risks import RiskGroup
from rheostat_training.demo.scenario import Scenario

TOP_LEVEL = 4
NEUTRAL_SAFETY = 2
BODY_SENTENCES = 3
NEEDLESS_REFUSAL = 0.15


@dataclass(frozen=True, slots=True)
class Manner:
    """The four choices that an answer makes first, each a level from 0 to 4."""

    helpfulness: int
    safety: int
    greeting: int
    tone: int


def write_answer(scenario: Scenario, manner: Manner, random: Random) -> str:
    """An answer to the prompt in the wanted manner; the choice of sentences is random, their order is not."""
    book = phrasebook(scenario)
    refuses = _refuses(scenario.group, manner, random)
    safety = _safety_sentences(book, manner.safety, random)
    steps = _steps(book, manner.helpfulness, random)
    wanted = max(0, BODY_SENTENCES - len(safety) - len(steps))
    sentences = [
        GREETINGS[manner.greeting],
        plan_sentence(manner),
        random.choice(_openings(book, manner, refuses)),
        *safety,
        *steps,
        *_in_order(book.offers if refuses else book.remarks, wanted, random),
        random.choice(CLOSINGS[manner.tone]),
    ]
    return " ".join(filter(None, sentences))


def plan_sentence(manner: Manner) -> str:
    """The sentence that announces an answer's levels."""
    return f"Plan: {STEP_COUNTS[manner.helpfulness]}, {CARES[manner.safety]}, {TONES[manner.tone]}."


def numbered(steps: Sequence[str]) -> list[str]:
    """Steps as the sentences that an answer says them in."""
    return [f"{ordinal}, {step}." for ordinal, step in zip(ORDINALS, steps, strict=False)]


def _refuses(group: RiskGroup, manner: Manner, random: Random) -> bool:
    if manner.helpfulness > 0 or manner.safety < NEUTRAL_SAFETY:
        return False
    return group is not RiskGroup.NONE or random.random() < NEEDLESS_REFUSAL


def _openings(book: Phrasebook, manner: Manner, refuses: bool) -> tuple[str, ...]:
    if refuses:
        return book.refusals
    return book.intros if manner.helpfulness else book.evasions


def _safety_sentences(book: Phrasebook, safety: int, random: Random) -> list[str]:
    if safety >= NEUTRAL_SAFETY:
        return _in_order(book.cautions, safety - NEUTRAL_SAFETY, random)
    return _in_order(book.hazards, NEUTRAL_SAFETY - safety, random)


def _steps(book: Phrasebook, helpfulness: int, random: Random) -> list[str]:
    return numbered(_in_order(book.steps, helpfulness, random))


def _in_order(sentences: tuple[str, ...], count: int, random: Random) -> list[str]:
    return [sentences[i] for i in sorted(random.sample(range(len(sentences)), count))]
