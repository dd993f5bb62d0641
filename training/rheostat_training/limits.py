"""What a plan's values may be; whatever is wrong with one plan is told at once."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from pydantic import ConfigDict

STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False)
"""How a plan is read from a file: no key that it does not know, no number that is none."""


SEEDS: Final = 2**32
"""How many seeds NumPy takes, the fewest of the generators."""


def refuse(*found: Iterable[str]) -> None:
    """Raises ValueError with all that was found, a line each; does nothing where nothing was."""
    if told := list(chain(*found)):
        raise ValueError("\n".join(told))


def at_least(plan: object, least: float, *names: str) -> Iterator[str]:
    """A sentence for each of the fields that is below the least; NaN is."""
    for name in names:
        value = getattr(plan, name)
        if not value >= least:
            yield f"{name} is {value}; it must be {'0 or more' if least == 0 else f'at least {least}'}"


def above_zero(plan: object, *names: str) -> Iterator[str]:
    """A sentence for each of the fields that is not above 0."""
    for name in names:
        value = getattr(plan, name)
        if not value > 0:
            yield f"{name} is {value}; it must be above 0"


def a_seed(plan: Any) -> Iterator[str]:
    """A sentence where the plan's seed is none that every generator of numbers takes."""
    if not is_seed(plan.seed):
        yield f"seed is {plan.seed}; it must be from 0 to {SEEDS - 1}"


def is_seed(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < SEEDS


def one_of(plan: object, name: str, known: Iterable[object]) -> Iterator[str]:
    """A sentence where the field has no known value."""
    value = getattr(plan, name)
    if value not in (options := list(known)):
        yield f"{name} is {value!r}; it must be one of {', '.join(map(str, options))}"


def where(wrong: bool, told: str) -> Iterator[str]:
    """The sentence where something is wrong."""
    if wrong:
        yield told
