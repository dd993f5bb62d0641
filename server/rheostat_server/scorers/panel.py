"""All scorers of a server as one: each dial's level is the weighted mean of those that judge it."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.errors import CannotStart, ScorerUnavailable
from rheostat_server.scorers import Dialogue, Message, Scorer, ScorerCard, Scores

DIGEST_SHOWN: Final = 12

Told = list[Scores] | ScorerUnavailable
"""What a scorer said of some answers, or that it could not be asked."""
Column = list[float | None]
"""A scorer's levels of some answers on one dial."""


@dataclass(frozen=True, slots=True)
class Member:
    """A scorer and its share of each dial that it judges."""

    scorer: Scorer
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """The best estimate of a level from a score with noise: mean + reliability · (score − mean) (Kelley 1947).

    `mean` is that of the scores, `reliability` the share of their variance that another judge agrees on.

    Raises:
        ValueError: one of them is not in [0, 1].
    """

    reliability: float = 1.0
    mean: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("reliability", self.reliability), ("mean", self.mean)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must be from 0 to 1")

    def of(self, level: float) -> float:
        return self.mean + self.reliability * (level - self.mean)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Scores of answers in their order, and the names of scorers that a dial did without: they failed, or could not
    judge all of the answers.
    """

    scores: list[Scores]
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Panel:
    """Asks its members side by side. One that fails is left out where another judges the same dial.

    Choosing the nearest of many by a noisy score takes the noise for merit; a `shrinkage` of a dial takes it back.

    Raises:
        CannotStart: a dial is judged by nobody, or two members have one name.
    """

    members: Sequence[Member]
    shrinkage: Mapping[DialName, Shrinkage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [card.name for card in self.cards]
        if missing := [dial for dial in DIAL_NAMES if not any(dial in card.dials for card in self.cards)]:
            raise CannotStart(f"no scorer judges {missing[0]}; reranking needs one for each dial")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise CannotStart(f"two scorers are named {twice[0]!r}; give each another name")

    @property
    def cards(self) -> list[ScorerCard]:
        return [member.scorer.card for member in self.members]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Each scorer by its name and the beginning of its digest."""
        return tuple(f"{card.name}@{card.digest.removeprefix('sha256:')[:DIGEST_SHOWN]}" for card in self.cards)

    async def judge(self, messages: Sequence[Message], answers: Sequence[str], *, by_all: bool = False) -> Judgement:
        """What the members say of answers to one conversation; equal answers are judged once.

        With `by_all` a level needs every scorer of its dial. Otherwise it is the mean of those that judged all of the
        answers, so that levels are on one scale; where none did, of those that judged the answer.

        Raises:
            ScorerUnavailable: all that judge a dial are unavailable; with `by_all`, one of them.
        """
        distinct = list(dict.fromkeys(answers))
        dialogues = [Dialogue(messages, answer) for answer in distinct]
        found = await asyncio.gather(*(_asked(member.scorer, dialogues) for member in self.members))
        self._check_judged(found, by_all=by_all)
        heard = {dial: self._heard(dial, found, by_all=by_all) for dial in DIAL_NAMES}
        by_dial = {dial: self._levels(dial, heard[dial], by_all=by_all) for dial in DIAL_NAMES}
        levels = zip(distinct, by_dial["safety"], by_dial["helpfulness"], strict=True)
        by_answer = {answer: Scores(safety, helpfulness) for answer, safety, helpfulness in levels}
        left_out = {card.name for card in self.cards for dial in card.dials if card.name not in heard[dial]}
        return Judgement([by_answer[answer] for answer in answers], frozenset(left_out))

    async def close(self) -> None:
        """Frees every scorer, even if another cannot be freed."""
        async with AsyncExitStack() as stack:
            for member in self.members:
                stack.push_async_callback(member.scorer.close)

    def _check_judged(self, found: Sequence[Told], *, by_all: bool) -> None:
        for dial in DIAL_NAMES:
            told = [each for member, each in zip(self.members, found, strict=True) if dial in member.scorer.card.dials]
            failures = [each for each in told if isinstance(each, ScorerUnavailable)]
            if len(failures) == len(told) or (by_all and failures):
                raise failures[0]

    def _heard(self, dial: DialName, found: Sequence[Told], *, by_all: bool) -> dict[str, tuple[float, Column]]:
        """Weights and levels of a dial by the names of those that its level is made of."""
        judged = {
            member.scorer.card.name: (member.weight, [one.level(dial) for one in told])
            for member, told in zip(self.members, found, strict=True)
            if dial in member.scorer.card.dials and not isinstance(told, ScorerUnavailable)
        }
        whole = {} if by_all else {name: heard for name, heard in judged.items() if None not in heard[1]}
        return whole or judged

    def _levels(self, dial: DialName, heard: Mapping[str, tuple[float, Column]], *, by_all: bool) -> Column:
        """A dial's level of each answer."""
        weights, columns = zip(*heard.values(), strict=True)
        shrink = self.shrinkage.get(dial, Shrinkage()).of
        return [
            None if (mean := _mean(weights, row, by_all=by_all)) is None else shrink(mean)
            for row in zip(*columns, strict=True)
        ]


def _mean(weights: Sequence[float], levels: Sequence[float | None], *, by_all: bool) -> float | None:
    """The weighted mean of the levels that are there; None where there is none, or with `by_all` where one lacks."""
    known = [(weight, level) for weight, level in zip(weights, levels, strict=True) if level is not None]
    if not known or (by_all and len(known) < len(levels)):
        return None
    return sum(weight * level for weight, level in known) / sum(weight for weight, _ in known)


async def _asked(scorer: Scorer, dialogues: Sequence[Dialogue]) -> Told:
    try:
        return await scorer.score(dialogues)
    except ScorerUnavailable as exc:
        return exc
