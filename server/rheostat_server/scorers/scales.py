"""How a model's raw outputs become a level in [0, 1]; what is no finite number becomes no level."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Label = int | str
"""An output of a model: its index, or its name in the model's `id2label`."""


class _Normalisation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Linear(_Normalisation):
    """0 at `low` and below, 1 at `high` and above, straight between."""

    low: float
    high: float

    @model_validator(mode="after")
    def _check(self) -> "Linear":
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low must be below high (invert turns them)")
        return self

    def level(self, raw: float) -> float:
        return min(1.0, max(0.0, (raw - self.low) / (self.high - self.low)))


class Logistic(_Normalisation):
    """The logistic function of the standardised score: 0.5 at `mean`, 0.73 one `spread` above."""

    mean: float
    spread: float = Field(gt=0)

    def level(self, raw: float) -> float:
        return sigmoid((raw - self.mean) / self.spread)


class Empirical(_Normalisation):
    """The share of known scores below: `quantiles` are ascending scores at equal steps of the share, 0 to 1."""

    quantiles: list[float] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> "Empirical":
        pairs = zip(self.quantiles, self.quantiles[1:], strict=False)
        if fallen := next(((one, other) for one, other in pairs if one > other), None):
            raise ValueError(f"quantiles hold {fallen[1]:g} after {fallen[0]:g}; they must ascend")
        if self.quantiles[0] == self.quantiles[-1]:
            raise ValueError(f"quantiles are all {self.quantiles[0]:g}; they must differ")
        return self

    def level(self, raw: float) -> float:
        """Linear between quantiles; a score that several of them share is in the middle of these."""
        below, until = bisect_left(self.quantiles, raw), bisect_right(self.quantiles, raw)
        last = len(self.quantiles) - 1
        if below < until:
            return (below + until - 1) / 2 / last
        if below in (0, last + 1):
            return float(below > 0)
        one, other = self.quantiles[below - 1], self.quantiles[below]
        return (below - 1 + (raw - one) / (other - one)) / last


Named = Literal["sigmoid", "softmax"]
Scale = Named | Linear | Logistic | Empirical


@dataclass(frozen=True, slots=True)
class Head:
    """Which outputs of a model are read for a dial, on which scale, and whether a higher one is worse.

    `labels` is empty where the model has one output; `scale` is None where it is a single logit, read by the sigmoid.
    """

    labels: tuple[Label, ...] = ()
    scale: Scale | None = None
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Gauge:
    """A head that fits its model: columns of the outputs, and how they become a level."""

    columns: tuple[int, ...]
    scale: Scale
    invert: bool = False

    @classmethod
    def of(cls, head: Head, names: Sequence[str]) -> "Gauge":
        """The head of a model whose outputs have these names.

        Raises:
            ValueError: an output that it names is not there, or it does not say which, or how to read it.
        """
        columns = tuple(dict.fromkeys(_column(label, names) for label in head.labels))
        if not columns and len(names) > 1 and head.scale != "softmax":
            raise ValueError(f"label is not given, and the model has {len(names)} outputs; give one of {_told(names)}")
        scale = head.scale or _scale_of_one(names)
        if scale == "softmax":
            _check_softmax(columns, names)
        elif len(columns) > 1:
            raise ValueError(f"label names {len(columns)} outputs; scale softmax adds several up, others read one")
        return cls(columns or (0,), scale, head.invert)

    def level(self, outputs: Sequence[float]) -> float | None:
        """A level of one row of raw outputs; None where those it reads are not finite."""
        read = outputs if self.scale == "softmax" else [outputs[at] for at in self.columns]
        if not all(math.isfinite(value) for value in read):
            return None
        found = self._level(outputs)
        return 1 - found if self.invert else found

    def _level(self, outputs: Sequence[float]) -> float:
        if self.scale == "softmax":
            return share(outputs, self.columns)
        raw = outputs[self.columns[0]]
        return sigmoid(raw) if isinstance(self.scale, str) else self.scale.level(raw)


def sigmoid(raw: float) -> float:
    """1 / (1 + e^−raw), without overflow."""
    if raw >= 0:
        return 1 / (1 + math.exp(-raw))
    grown = math.exp(raw)
    return grown / (1 + grown)


def share(outputs: Sequence[float], columns: Sequence[int]) -> float:
    """The softmax probability of some of the outputs together."""
    highest = max(outputs)
    weights = [math.exp(value - highest) for value in outputs]
    return min(1.0, sum(weights[at] for at in columns) / sum(weights))


def _column(label: Label, names: Sequence[str]) -> int:
    if isinstance(label, str) and label in names:
        return names.index(label)
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    raise ValueError(f"label is {label!r}; the model's outputs are {_told(names)}")


def _scale_of_one(names: Sequence[str]) -> Named:
    if len(names) > 1:
        raise ValueError(
            f"scale is not given, and the model has {len(names)} outputs; give softmax where exactly one of them is "
            "right, sigmoid where each is judged alone, or how its raw score is normalised"
        )
    return "sigmoid"


def _check_softmax(columns: Sequence[int], names: Sequence[str]) -> None:
    if len(names) == 1:
        raise ValueError("scale is softmax, and the model has one output; give sigmoid or a normalisation")
    if not columns or len(set(columns)) == len(names):
        asked = "all outputs" if columns else "no output"
        raise ValueError(f"scale is softmax, and label names {asked}; name some of {_told(names)}")


def _told(names: Sequence[str]) -> str:
    return ", ".join(f"{name} ({at})" for at, name in enumerate(names))
