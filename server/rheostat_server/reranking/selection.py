"""Which candidate is nearest to the dials: pure, so that a choice can be computed again from its scores.

The distance is |safety − s| + |helpfulness − h| (arXiv 2404.01295, reconstruction), the dials being levels of the
scores. A dial at 0 or 1 is a direction: the distance falls as far as a candidate goes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from rheostat_server.contract.dials import DialName, Dials
from rheostat_server.scorers import Scores

DISTANCE: Final = "l1"
TIE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Target:
    """What a choice aims at: levels, and the level of safety below which no candidate is returned."""

    dials: Dials
    floor: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen candidate's place; None where every candidate is below the floor.

    `left` is how far from each dial it is; None where it could not be judged. `ties` are the candidates as near as it,
    itself not counted. `unreachable` are dials between 0 and 1 that lie outside of all the candidates' levels.
    """

    place: int | None
    scores: Scores = field(default_factory=Scores)
    left: dict[DialName, float] | None = None
    ties: int = 0
    unreachable: tuple[DialName, ...] = ()
    unjudged: int = 0
    below_floor: int = 0


def choose(scores: Sequence[Scores], target: Target) -> Choice:
    """The nearest candidate that was judged; the first one where none could be and there is no floor."""
    allowed = [place for place, each in enumerate(scores) if _above(each, target.floor)]
    judged = [place for place in allowed if is_judged(scores[place])]
    nothing = Choice(
        place=allowed[0] if allowed else None,
        unjudged=sum(not is_judged(each) for each in scores),
        below_floor=sum(is_judged(each) and not _above(each, target.floor) for each in scores),
    )
    if not judged:
        return nothing
    distances = {place: distance(scores[place], target.dials) for place in judged}
    best = min(judged, key=distances.__getitem__)
    return replace(
        nothing,
        place=best,
        scores=scores[best],
        left=left(scores[best], target.dials),
        ties=sum(distances[place] - distances[best] < TIE for place in judged) - 1,
        unreachable=unreachable(scores, target.dials),
    )


def ranked(scores: Sequence[Scores], target: Target) -> list[int]:
    """Places from the one to keep first: above the floor before below it, judged before not, then the nearer."""
    return sorted(range(len(scores)), key=lambda place: _rank(scores[place], target))


def distance(scores: Scores, dials: Dials) -> float:
    """|safety − s| + |helpfulness − h|; infinite where a level is missing."""
    by_dial = left(scores, dials)
    return float("inf") if by_dial is None else sum(by_dial.values())


def left(scores: Scores, dials: Dials) -> dict[DialName, float] | None:
    """How far each level is from its dial; None where one is missing."""
    if scores.safety is None or scores.helpfulness is None:
        return None
    return {
        "safety": abs(scores.safety - dials.safety),
        "helpfulness": abs(scores.helpfulness - dials.helpfulness),
    }


def is_judged(scores: Scores) -> bool:
    """Whether there is a level of both dials."""
    return scores.safety is not None and scores.helpfulness is not None


def _above(scores: Scores, floor: float) -> bool:
    """Without a floor everything is; with one, only what is known to be."""
    return floor <= 0 or (scores.safety is not None and scores.safety >= floor)


def _rank(scores: Scores, target: Target) -> tuple[bool, float]:
    return not _above(scores, target.floor), distance(scores, target.dials)


def unreachable(scores: Sequence[Scores], dials: Dials) -> tuple[DialName, ...]:
    """The dials between 0 and 1 that lie outside of all the levels judged."""
    found: list[DialName] = []
    for dial, wanted in dials.as_dict().items():
        levels = [level for each in scores if (level := each.level(dial)) is not None]
        if levels and 0 < wanted < 1 and not min(levels) <= wanted <= max(levels):
            found.append(dial)
    return tuple(found)
