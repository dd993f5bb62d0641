"""Whose step is next."""

from itertools import count
from typing import Any

import pytest

from rheostat_server.engines.embedded.lanes import STILL_SECONDS, Lanes


class Steps:
    """A batch that has so many steps to make."""

    def __init__(self, name: str, left: int) -> None:
        self.name, self.left = name, left

    @property
    def busy(self) -> bool:
        return self.left > 0

    def step(self) -> list[Any]:
        self.left -= 1
        return [self.name]


def order(*, urgent: int, others: int, seconds: float) -> str:
    """The first letter of each batch that steps, if each step takes so many seconds, until all is done."""
    ticks = count()
    lanes = Lanes(Steps("u", urgent), Steps("o", others), clock=lambda: next(ticks) * seconds)  # type: ignore[arg-type]
    found = ""
    while lanes.busy:
        found += str(lanes.step()[0])
    return found


@pytest.mark.parametrize(
    ("urgent", "others", "seconds", "expected"),
    [
        (3, 3, 0.0, "uuuooo"),
        (0, 3, 0.0, "ooo"),
        (3, 0, STILL_SECONDS, "uuu"),
        (6, 9, STILL_SECONDS / 2, "uuououououooooo"),
    ],
    ids=["urgent first", "no urgent ones", "nothing else", "in turn after a while"],
)
def test_the_others_stand_still_while_urgent_ones_run_but_not_for_good(
    urgent: int, others: int, seconds: float, expected: str
) -> None:
    assert order(urgent=urgent, others=others, seconds=seconds) == expected
