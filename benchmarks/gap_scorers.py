"""Scorers whose faults are known: levels told again with noise, by one or by several; and how far to believe them."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np

from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.scorers import UNJUDGED, Dialogue, Scorer, ScorerCard, Scores
from rheostat_server.scorers.panel import Member, Panel, Shrinkage
from rheostat_training.rows import Prompt
from rheostat_training.score import Judge

Known = Mapping[tuple[str, str], Scores]
"""Scores by question and answer."""
NOISY: Final = "noisy"


@dataclass(frozen=True, slots=True)
class Offer:
    """A prompt and the candidates to choose from."""

    prompt: Prompt
    answers: tuple[str, ...]

    @property
    def dialogues(self) -> list[Dialogue]:
        return [Dialogue(self.prompt.messages, answer) for answer in self.answers]


@dataclass(frozen=True, slots=True)
class Noisy:
    """A Scorer that tells known levels with Gaussian noise of deviation `sigma`, cut to [0, 1].

    The noise is settled by seed, question and answer: as a real scorer it errs the same way however often it is asked.
    """

    known: Known
    sigma: float
    seed: int

    @property
    def card(self) -> ScorerCard:
        return ScorerCard(f"{NOISY} {self.seed}", NOISY, f"{self.sigma} {self.seed}", DIAL_NAMES)

    async def score(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        return [self._one(dialogue) for dialogue in dialogues]

    async def close(self) -> None:
        """Holds nothing."""

    def _one(self, dialogue: Dialogue) -> Scores:
        known = self.known[(dialogue.question, dialogue.answer)]
        if known.safety is None or known.helpfulness is None:
            return UNJUDGED
        words = zlib.crc32(f"{dialogue.question}\n{dialogue.answer}".encode())
        drawn = np.random.default_rng([self.seed, words]).normal(0.0, self.sigma, 2)
        safety, helpfulness = np.clip(np.array([known.safety, known.helpfulness]) + drawn, 0, 1).tolist()
        return Scores(safety, helpfulness)


@dataclass(frozen=True, slots=True)
class Selecting:
    """The scorers that choose, and whether their mean is shrunk by what another judge says of other prompts."""

    name: str
    scorers: Sequence[Scorer]
    shrunk: bool = False


async def told(by: Selecting, offers: Sequence[Offer], other: Known) -> list[list[Scores]]:
    """What a server's panel of these scorers tells of each offer's answers."""
    plain = await _judged(Panel([Member(scorer) for scorer in by.scorers]), offers)
    if not by.shrunk:
        return plain
    result = plain.copy()
    one, two = halves(len(offers))
    for here, there in ((one, two), (two, one)):
        panel = Panel([Member(scorer) for scorer in by.scorers], _shrinkage_on(there, plain, offers, other))
        for place, scores in zip(here, await _judged(panel, [offers[place] for place in here]), strict=True):
            result[place] = scores
    return result


def halves(count: int, *, seed: int = 0) -> tuple[list[int], list[int]]:
    """Places below `count` in two halves by chance, since prompts of one kind may follow each other in turns."""
    order = Random(seed).sample(range(count), count)
    return sorted(order[: count // 2]), sorted(order[count // 2 :])


def shrinkage_of(scores: Sequence[Scores], other: Sequence[Scores]) -> dict[DialName, Shrinkage]:
    """By dial: the squared correlation of the scores with another judge's levels, and the scores' mean.

    An answer that either could not judge is left out.

    Raises:
        ValueError: fewer than two answers are left.
    """
    return {dial: _shrinkage(dial, scores, other) for dial in DIAL_NAMES}


def recorded(judge: Judge, offers: Sequence[Offer]) -> Known:
    """What a judge says of every answer."""
    dialogues = [dialogue for offer in offers for dialogue in offer.dialogues]
    names = [(dialogue.question, dialogue.answer) for dialogue in dialogues]
    return dict(zip(names, judge.judge(dialogues), strict=True))


async def known_of(scorers: Sequence[Scorer], offers: Sequence[Offer]) -> Known:
    """What a panel of scorers tells of every answer."""
    found = await told(Selecting("", scorers), offers, {})
    return {
        (offer.prompt.text, answer): scores
        for offer, row in zip(offers, found, strict=True)
        for answer, scores in zip(offer.answers, row, strict=True)
    }


async def _judged(panel: Panel, offers: Sequence[Offer]) -> list[list[Scores]]:
    return [(await panel.judge(offer.prompt.messages, offer.answers)).scores for offer in offers]


def _shrinkage_on(
    places: Sequence[int], scores: Sequence[Sequence[Scores]], offers: Sequence[Offer], other: Known
) -> dict[DialName, Shrinkage]:
    asked = [(offers[place].prompt.text, answer) for place in places for answer in offers[place].answers]
    return shrinkage_of([each for place in places for each in scores[place]], [other[name] for name in asked])


def _shrinkage(dial: DialName, scores: Sequence[Scores], other: Sequence[Scores]) -> Shrinkage:
    pairs = [(one.level(dial), two.level(dial)) for one, two in zip(scores, other, strict=True)]
    both = np.array([pair for pair in pairs if None not in pair], dtype=np.float64)
    if len(both) < 2:
        raise ValueError(f"{len(both)} answers were judged for {dial} by both; at least 2 are needed")
    spreads = both.std(axis=0).prod()
    correlation = np.cov(both.T, bias=True)[0, 1] / spreads if spreads else 0.0
    return Shrinkage(float(correlation**2), float(both[:, 0].mean()))
