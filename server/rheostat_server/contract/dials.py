"""The two dials: their names, their range, and a checked pair of values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

DialName = Literal["safety", "helpfulness"]
DIAL_NAMES: tuple[DialName, ...] = get_args(DialName)


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

    def replaced(self, values: Mapping[DialName, float]) -> "Dials":
        merged = {**self.as_dict(), **values}
        return Dials(safety=merged["safety"], helpfulness=merged["helpfulness"])


def check_dial(name: str, value: float) -> None:
    """Raises ValueError unless `value` is a finite number in [0, 1]; booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} is {value!r}; a dial is a number from 0 to 1")
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; a dial is a number from 0 to 1")
