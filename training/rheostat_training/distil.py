"""The distil stage, MOEC: of many scored answers, the few that are extreme or stand for a level, with dials."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rheostat_server.contract.dials import Dials
from rheostat_training.limits import STRICT, a_seed, at_least, one_of, refuse, where
from rheostat_training.rows import Example, Scored

Array = NDArray[np.float64]
Mapping = Literal["identity", "minmax", "quantile"]
Method = Literal["moec", "raw"]
Control = Literal["matched", "mismatched"]
Cells = Literal["reached", "corners"]
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


@dataclass(frozen=True, slots=True)
class DistilPlan:
    """How answers are chosen.

    `method` "moec" keeps extremes and quantises; "raw" keeps every answer under its own mapped scores, the noisy set
    that MOEC is compared with. Answers whose `least` token probability is below `least_probability` are slips of
    sampling, and left out of both. `levels` is K, the levels a dial; `margin` the least gap to the opposite corner, in
    sums of both standardised scores. `cells` "corners" is MOEC alone; "reached" adds, per prompt and
    combination of levels, the answer that is nearest to it. `per_cell` bounds the examples of one combination over the
    whole set. `control` "mismatched" gives each answer the dials of another answer of its prompt: a placebo, which
    shows what is learnt from the answers alone.
    """

    __pydantic_config__ = STRICT

    method: Method = "moec"
    least_probability: float = 0.0
    levels: int = 5
    margin: float = 0.5
    mapping: Mapping = "identity"
    cells: Cells = "reached"
    per_cell: int | None = None
    control: Control = "matched"
    seed: int = 0

    def __post_init__(self) -> None:
        least, bound = self.least_probability, self.per_cell
        refuse(
            one_of(self, "method", get_args(Method)),
            one_of(self, "mapping", MAPPINGS),
            one_of(self, "cells", get_args(Cells)),
            one_of(self, "control", get_args(Control)),
            at_least(self, 2, "levels"),
            at_least(self, 0, "margin"),
            a_seed(self),
            where(not 0 <= least < 1, f"least_probability is {least}; it must be 0 or more, and below 1"),
            where(bound is not None and bound < 1, f"per_cell is {bound}; it must be at least 1, or None for no bound"),
        )


@dataclass(frozen=True, slots=True)
class Distilled:
    """Examples, how many there are for each combination of levels, and how many rows had no score or were slips."""

    examples: tuple[Example, ...]
    counts: dict[Dials, int]
    unjudged: int
    slips: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An answer with its mapped scores in [0, 1] and its standardised scores."""

    row: Scored
    safety: float
    helpfulness: float
    z_safety: float
    z_helpfulness: float


def distil(scored: Sequence[Scored], plan: DistilPlan) -> Distilled:
    """Chooses from a set of scored answers by the plan's method, balanced by the dials that they are labelled with.

    MOEC labels an answer with the levels nearest to its own scores, never with those it was sought for; the raw method
    with the scores themselves. Mismatched control then exchanges the dials within each prompt.
    """
    sure = [row for row in scored if row.least is None or row.least >= plan.least_probability]
    candidates = _candidates(sure, plan)
    kept = _balanced(_raw(candidates) if plan.method == "raw" else _moec(candidates, plan), plan)
    if plan.control == "mismatched":
        kept = _mismatched(kept, plan.seed)
    counts = Counter(example.dials for example in kept)
    unjudged = sum(row.safety is None or row.helpfulness is None for row in sure)
    return Distilled(tuple(kept), dict(counts), unjudged, slips=len(scored) - len(sure))


def _moec(candidates: Sequence[_Candidate], plan: DistilPlan) -> list[Example]:
    by_prompt: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_prompt[candidate.row.prompt_id].append(candidate)
    choose = _reached if plan.cells == "reached" else _extremes
    return [_example(item, _cell(item, plan.levels)) for group in by_prompt.values() for item in choose(group, plan)]


def _raw(candidates: Sequence[_Candidate]) -> list[Example]:
    """Every answer, under its scores as control text writes them."""
    return [_example(item, Dials(round(item.safety, 2), round(item.helpfulness, 2))) for item in candidates]


def quantise(value: float, levels: int) -> float:
    """Q(v) = round(v·(K−1))/(K−1), halves upward."""
    steps = levels - 1
    return min(steps, int(value * steps + 0.5)) / steps


def standardise(values: Array) -> Array:
    """z-scores over the set; all 0 where every value is the same."""
    spread = float(values.std())
    return (values - values.mean()) / spread if spread else np.zeros_like(values)


def map_identity(values: Array) -> Array:
    """Scores that already are levels."""
    return values.clip(0, 1)


def map_minmax(values: Array) -> Array:
    """The least score becomes 0, the greatest 1."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)


def map_quantile(values: Array) -> Array:
    """A score becomes its rank among all, in [0, 1]; equal scores share their mean rank."""
    if len(values) == 1:
        return np.full_like(values, 0.5)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks = (ends - counts + ends - 1) / 2
    result: Array = ranks[place] / (len(values) - 1)
    return result


MAPPINGS: dict[str, Callable[[Array], Array]] = {
    "identity": map_identity,
    "minmax": map_minmax,
    "quantile": map_quantile,
}


def _candidates(scored: Sequence[Scored], plan: DistilPlan) -> list[_Candidate]:
    rows: list[Scored] = []
    pairs: list[tuple[float, float]] = []
    seen: set[tuple[str, str]] = set()
    for row in scored:
        key = (row.prompt_id, row.answer)
        if row.safety is not None and row.helpfulness is not None and row.answer and key not in seen:
            seen.add(key)
            rows.append(row)
            pairs.append((row.safety, row.helpfulness))
    if not rows:
        return []
    safety, helpfulness = np.array(pairs, dtype=np.float64).T
    mapping = MAPPINGS[plan.mapping]
    columns = (mapping(safety), mapping(helpfulness), standardise(safety), standardise(helpfulness))
    values = zip(*(column.tolist() for column in columns), strict=True)
    return [_Candidate(row, *value) for row, value in zip(rows, values, strict=True)]


def _extremes(group: Sequence[_Candidate], plan: DistilPlan) -> Iterator[_Candidate]:
    """Per corner (a, b), the argmax of a·z_h + b·z_s where it leads the opposite corner's by the margin."""
    winners = {corner: max(group, key=lambda item: _lean(item, corner)) for corner in CORNERS}
    taken: set[str] = set()
    for corner, winner in winners.items():
        opposite = winners[-corner[0], -corner[1]]
        if _lean(winner, corner) - _lean(opposite, corner) >= plan.margin and winner.row.answer not in taken:
            taken.add(winner.row.answer)
            yield winner


def _reached(group: Sequence[_Candidate], plan: DistilPlan) -> Iterator[_Candidate]:
    """MOEC's extremes, and the nearest answer to each combination of levels that none of them reached."""
    extremes = list(_extremes(group, plan))
    cells = {_cell(item, plan.levels) for item in extremes}
    yield from extremes
    nearest: dict[Dials, _Candidate] = {}
    for item in group:
        cell = _cell(item, plan.levels)
        if cell not in cells and (cell not in nearest or _miss(item, cell) < _miss(nearest[cell], cell)):
            nearest[cell] = item
    yield from nearest.values()


def _lean(item: _Candidate, corner: tuple[int, int]) -> float:
    return corner[0] * item.z_helpfulness + corner[1] * item.z_safety


def _cell(item: _Candidate, levels: int) -> Dials:
    return Dials(safety=quantise(item.safety, levels), helpfulness=quantise(item.helpfulness, levels))


def _miss(item: _Candidate, cell: Dials) -> float:
    return abs(item.safety - cell.safety) + abs(item.helpfulness - cell.helpfulness)


def _example(item: _Candidate, dials: Dials) -> Example:
    return Example(item.row.prompt_id, item.row.answer, dials, item.safety, item.helpfulness)


def _balanced(examples: Sequence[Example], plan: DistilPlan) -> list[Example]:
    if plan.per_cell is None:
        return list(examples)
    chance = random.Random(plan.seed)
    cells: defaultdict[Dials, list[int]] = defaultdict(list)
    for position, example in enumerate(examples):
        cells[example.dials].append(position)
    kept = [chance.sample(cell, min(plan.per_cell, len(cell))) for cell in cells.values()]
    return [examples[position] for position in sorted(position for cell in kept for position in cell)]


def _mismatched(examples: Sequence[Example], seed: int) -> list[Example]:
    """Every answer under the dials of the next one of its prompt, in a drawn order; a prompt's only answer has none."""
    chance = random.Random(f"mismatched {seed}")
    by_prompt: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_prompt[example.prompt_id].append(example)
    found: list[Example] = []
    for group in by_prompt.values():
        chance.shuffle(group)
        pairs = zip(group, [*group[1:], group[0]], strict=True)
        found += [replace(example, dials=other.dials) for example, other in pairs if len(group) > 1]
    return found
