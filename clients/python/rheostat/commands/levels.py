"""A point's levels by the dial's name."""

from rheostat.answers import Point


def asked(point: Point, dial: str) -> float | None:
    """None where the dial was not swept."""
    return point.safety if dial == "safety" else point.helpfulness


def judged(point: Point, dial: str) -> float | None:
    """None where the dial was not judged."""
    if point.scores is None:
        return None
    return point.scores.safety if dial == "safety" else point.scores.helpfulness
