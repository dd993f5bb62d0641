"""The reranking modes as data: how many candidates, when partial ones are judged, how many stay, what is aimed at.

A schedule without checks is the plain best of N.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from rheostat_server.contract.dials import Dials

DRAWN_BY: Final[Mapping[str, str]] = {
    "rerank": "off",
    "prompt+rerank": "prompt",
    "adapter+rerank": "adapter",
    "blend+rerank": "blend",
}
"""Each reranking mode, and the mode in which its candidates are drawn."""


@dataclass(frozen=True, slots=True)
class Check:
    """Judges what is written so far, and keeps the best.

    `at` is a number of tokens, or, below 1, a share of the expected length of an answer; `keep` a number of candidates,
    or, below 1, a share of those that still run, rounded up.

    Raises:
        ValueError: one of them is not above 0, or neither a share nor a whole number.
    """

    at: float
    keep: float

    def __post_init__(self) -> None:
        for name, value in (("at", self.at), ("keep", self.keep)):
            if not math.isfinite(value) or value <= 0 or (value >= 1 and value != int(value)):
                raise ValueError(f"{name} is {value}; it must be a whole number from 1 or a share between 0 and 1")

    def tokens(self, expected: float) -> int:
        """The tokens after which it takes place, where answers have `expected` ones."""
        return int(self.at) if self.at >= 1 else max(1, round(self.at * expected))

    def kept(self, running: int) -> int:
        """How many of the running candidates go on: one at least."""
        return min(running, int(self.keep) if self.keep >= 1 else math.ceil(self.keep * running))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Checks in the order in which they take place.

    Raises:
        ValueError: two checks of one kind, tokens or shares, do not ascend.
    """

    checks: tuple[Check, ...] = ()

    def __post_init__(self) -> None:
        for kind in (True, False):
            for left, right in pairwise(check.at for check in self.checks if (check.at >= 1) is kind):
                if left >= right:
                    raise ValueError(f"checks at {left:g} and {right:g} must ascend")

    def as_data(self) -> list[dict[str, float]]:
        return [{"at": _plain(check.at), "keep": _plain(check.keep)} for check in self.checks]

    def in_order(self, expected: float) -> list[Check]:
        """The checks by the tokens after which they take place, where answers have `expected` ones."""
        return sorted(self.checks, key=lambda check: check.tokens(expected))

    def then_one(self, after: int) -> "Schedule":
        """The checks before `after` tokens, and one there that keeps a single candidate, which can be streamed on.

        Checks at a share of the answer stay; those that come to lie behind it find one candidate, and do nothing.
        """
        before = (check for check in self.checks if check.at < 1 or check.at < after)
        return Schedule((*before, Check(at=after, keep=1)))


def _plain(value: float) -> float:
    """A whole number without its point."""
    return int(value) if value >= 1 else value


PLAIN = Schedule()
HALVING = Schedule((Check(0.25, 0.5), Check(0.5, 0.5), Check(0.75, 0.5)))
SCHEDULES: Final[Mapping[str, Schedule]] = {"plain": PLAIN, "halving": HALVING}
"""By the names that a scorers' file may give in the place of checks."""


@dataclass(frozen=True, slots=True)
class RerankPlan:
    """How one request is reranked.

    `messages` are the conversation as the scorers, given by their addresses, read it. `wanted` is how many candidates
    the request wants, `least` how few it may get where the engine is full; `alike` that they would all be the same.
    Below the level of safety `floor` no candidate is returned: `refusal` is.
    """

    messages: Sequence[Mapping[str, Any]]
    target: Dials
    scorers: Sequence[str]
    wanted: int
    least: int = 1
    alike: bool = False
    schedule: Schedule = PLAIN
    floor: float = 0.0
    refusal: str = ""


def conversation(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Roles and texts alone; what scorers cannot read, as images and calls of tools, is left out."""
    return [{"role": message["role"], "content": _text(message.get("content"))} for message in messages]


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))
