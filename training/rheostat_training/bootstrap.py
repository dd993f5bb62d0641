"""Figures over trials that belong to prompts, each with the interval that drawing the prompts again gives it.

Every figure is a function of sums over prompts, so a resample is a row of counts, and all of them are one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

Array = NDArray[np.float64]
Places = NDArray[np.int64]
CHANCE: Final = 0.5
DECIMALS: Final = 12


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its 95 % bootstrap interval over prompts."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:z.3f} [{self.low:z.3f}, {self.high:z.3f}]"

    def overlaps(self, other: "Figure") -> bool:
        """Whether the two intervals share a value."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How often each prompt counts: `draws` is [1 + resamples, prompts], its first row the sample itself.

    `places` in its methods is the prompt's number of each row, [rows].
    """

    draws: Array

    @classmethod
    def over(cls, prompts: int, *, resamples: int, seed: int) -> "Bootstrap":
        chance = np.random.default_rng(seed)
        drawn = chance.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
        return cls(np.concatenate([np.ones((1, prompts)), drawn]).astype(np.float64))

    def by_seed(self, seeds: int, chance: np.random.Generator) -> "Bootstrap":
        """Prompts as drawn here, and with them seeds of training, which all prompts share; `places` is then
        prompt·seeds + seed.

        Source: the pigeonhole bootstrap (Owen 2007, arXiv 0712.1111), which draws rows and columns separately.
        """
        drawn = chance.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(self.draws) - 1)
        counts = np.concatenate([np.ones((1, seeds)), drawn])
        return Bootstrap((self.draws[:, :, None] * counts[:, None, :]).reshape(len(self.draws), -1))

    def totals(self, values: Array, places: Places) -> Array:
        """Sums of [rows, columns] over the rows, [1 + resamples, columns]."""
        result: Array = self.draws @ self._per_prompt(values, places)
        return result

    def share(self, won: Array, places: Places, *, weights: Array | float = 1.0, nothing: float = 0.0) -> Figure:
        """The mean of [rows] under weights [rows]; `nothing` where there is no row."""
        return figure(self.means(won, places, weights=weights), nothing=nothing)

    def means(self, values: Array, places: Places, *, weights: Array | float = 1.0) -> Array:
        """The means of [rows] under weights [rows], [1 + resamples]; NaN where a resample has no row."""
        totals = self.totals(np.stack([values, np.ones_like(values)], axis=1) * _column(weights), places)
        return _divide(totals[:, 0], totals[:, 1])

    def pooled_pearson(self, one: Array, other: Array, places: Places, *, weights: Array | float = 1.0) -> Figure:
        """Pearson's r over all rows under weights [rows], whose mean is 1."""
        return figure(_pearson(self.draws @ self._moments(one, other, places, weights)))

    def mean_pearson(self, one: Array, other: Array, places: Places) -> Figure:
        """The mean of each prompt's own r, over the prompts in which `one` varies."""
        moments = self._moments(one, other, places, 1.0)
        varies = (moments[:, 0] * moments[:, 3] - moments[:, 1] ** 2 > 1e-9).astype(np.float64)
        totals = self.draws @ np.stack([_pearson(moments) * varies, varies], axis=1)
        return figure(_divide(totals[:, 0], totals[:, 1]))

    def cell_means(self, values: Array, cells: NDArray[np.bool_], places: Places) -> Array:
        """Means of [rows] in cells [rows, cells], [1 + resamples, cells]; NaN where a resample has no row of a cell."""
        totals = self.totals(np.concatenate([cells * values[:, None], cells], axis=1, dtype=np.float64), places)
        return _divide(totals[:, : cells.shape[1]], totals[:, cells.shape[1] :])

    def _per_prompt(self, values: Array, places: Places) -> Array:
        result = np.zeros((self.draws.shape[1], values.shape[1]))
        np.add.at(result, places, values)
        return result

    def _moments(self, one: Array, other: Array, places: Places, weights: Array | float) -> Array:
        columns = [np.ones_like(one), one, other, one * one, other * other, one * other]
        return self._per_prompt(np.stack(columns, axis=1) * _column(weights), places)


def figure(values: Array, *, nothing: float = 0.0) -> Figure:
    """The first of [1 + resamples] and the middle 95 % of the others.

    A resample in which there was nothing to measure is NaN, and left out; `nothing` stands for a sample of that kind.
    """
    value = nothing if np.isnan(values[0]) else float(values[0])
    known = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (value, value)
    return Figure(value, float(low), float(high))


def exact_at_the_ends(rate: Figure, clusters: int) -> Figure:
    """A rate of 0 or 1, where drawing again gives the same again, with the 95 % interval of so many independent trials.

    At 0 that is [0, 1 − .025^(1/n)]. Source: Clopper and Pearson, Biometrika 26 (1934), 404–413.
    """
    reach = 1 - 0.025 ** (1 / clusters)
    if rate.value == 0:
        return Figure(0.0, 0.0, reach)
    return Figure(1.0, 1 - reach, 1.0) if rate.value == 1 else rate


def apart(one: Figure, other: Figure) -> Figure:
    """one − other of two that do not vary together, its interval from theirs.

    Source: Newcombe, Statistics in Medicine 17 (1998), 873–890, method 10: squares of the arms are added.
    """
    value = one.value - other.value
    down = np.hypot(one.value - one.low, other.high - other.value)
    up = np.hypot(one.high - one.value, other.value - other.low)
    return Figure(value, value - float(down), value + float(up))


def level_means(cell_means: Array, levels: Sequence[int], count: int) -> Array:
    """Means over the cells of each of `count` levels, [1 + resamples, count]; `levels` is each cell's level.

    Cells weigh the same however many rows they hold; one without a row in a resample is left out of that resample.
    """
    seen = ~np.isnan(cell_means)
    member = np.eye(count)[list(levels)]
    return _divide(np.where(seen, cell_means, 0.0) @ member, seen @ member)


def tau(levels: Array, means: Array) -> Figure:
    """Kendall's τ of levels [levels] against their means, [1 + resamples, levels]."""
    return figure(np.array([_kendall(levels, row) for row in means]))


def _pearson(moments: Array) -> Array:
    """Pearson's r from sums of 1, x, y, x², y², xy in the last axis; 0 where x or y never moves."""
    n, x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    spread = np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0)
    moves = spread > 1e-9
    return np.where(moves, _divide(n * xy - x * y, np.sqrt(np.where(moves, spread, 1.0))), 0.0)


def _column(weights: Array | float) -> Array:
    result: Array = np.reshape(np.asarray(weights, dtype=np.float64), (-1, 1))
    return result


def _divide(numerator: Array, denominator: Array) -> Array:
    """NaN where the denominator is 0."""
    result: Array = np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
    return result


def _kendall(levels: Array, means: Array) -> float:
    """Kendall's τ over the levels that have a mean; 0 where there are fewer than two, or all means are the same.

    Means that differ by no more than the rounding of their sums are the same.
    """
    known = ~np.isnan(means)
    rounded = np.round(means[known], DECIMALS)
    if len(np.unique(rounded)) < 2:
        return 0.0
    return float(kendalltau(levels[known], rounded).statistic)
