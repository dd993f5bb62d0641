"""A point's levels by the dial's name."""

from rheostat.answers import Point
from rheostat.dials import DIALS


def asked(point: Point, dial: str) -> float | None:
    """None where the dial was not swept."""
    return point.safety if dial == "safety" else point.helpfulness


def judged(point: Point, dial: str) -> float | None:
    """None where the dial was not judged."""
    if point.scores is None:
        return None
    return point.scores.safety if dial == "safety" else point.scores.helpfulness


def clamped_to(point: Point, dial: str) -> float | None:
    """The level that was in force as the one asked is beyond what the caller may set; None where that one was."""
    if point.receipt is None or point.receipt.effective is None or dial not in point.receipt.clamped:
        return None
    return point.receipt.effective.as_dict().get(dial)


def was_clamped(point: Point) -> bool:
    """Whether the answer is another than the point's levels let one think."""
    return any(clamped_to(point, dial) is not None for dial in DIALS)
