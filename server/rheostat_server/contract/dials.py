"""The two dials: their names, their range, and a checked pair of values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

DialName = Literal["safety", "helpfulness"]
DIAL_NAMES: tuple[DialName, ...] = get_args(DialName)


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number from 0 to 1")
    return value


Level = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_number)]
"""A dial's value in what is read: a request, a policy file, a manifest. Text and booleans are not numbers here."""


@dataclass(frozen=True, slots=True)
class Dials:
    """One value in [0, 1] for each dial.

    Raises:
        ValueError: a value is not a finite number in [0, 1]; the message names dial and value.
    """

    safety: float
    helpfulness: float

    def __post_init__(self) -> None:
        for name, value in self.as_dict().items():
            check_dial(name, value)

    def as_dict(self) -> dict[DialName, float]:
        return {"safety": self.safety, "helpfulness": self.helpfulness}

    def stepped(self, steps: Mapping[DialName, int], within: "Limits") -> "Dials":
        """The nearest dials that can be said with so many steps a dial, see `nearest_step`."""
        return self.replaced(
            {
                name: nearest_step(value, steps[name], within.get(name, (0.0, 1.0)))
                for name, value in self.as_dict().items()
            }
        )

    def replaced(self, values: Mapping[DialName, float]) -> "Dials":
        merged = {**self.as_dict(), **values}
        return Dials(safety=merged["safety"], helpfulness=merged["helpfulness"])


Limits = Mapping[DialName, tuple[float, float]]
"""By dial, the least and the greatest value that an operator lets a caller have in force."""


def nearest_step(value: float, steps: int, within: tuple[float, float] = (0.0, 1.0)) -> float:
    """The multiple of 1 / `steps` nearest to a value, among those within an operator's limits where one lies there."""
    near = round(value * steps)
    around = [step / steps for step in (near, near - 1, near + 1) if 0 <= step <= steps]
    allowed = [step for step in around if within[0] <= step <= within[1]]
    return min(allowed or around, key=lambda step: abs(step - value))


def nearest_level(levels: Sequence[float], value: float, within: tuple[float, float] = (0.0, 1.0)) -> float:
    """The level nearest to a value, the upper of two, among those within an operator's limits; else the nearer limit.

    So where no level lies within, there are two values that can be had, and not as many as there are numbers.
    """
    allowed = [level for level in levels if within[0] <= level <= within[1]]
    return min(allowed or within, key=lambda level: (abs(level - value), -level))


def check_dial(name: str, value: float) -> None:
    """Raises ValueError unless `value` is a finite number in [0, 1]; booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} is {value!r}; a dial is a number from 0 to 1")
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; a dial is a number from 0 to 1")
