"""The calibrate stage: which control value reaches a mean score, fitted by isotonic regression on held-out prompts.

A dial then means the same in every mode: safety 0.7 is the setting whose measured mean score is 0.7 (our design; no
source).
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from rheostat_server.contract.calibration import CalibrationPoint, DialCalibration, calibrated
from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials
from rheostat_server.contract.wordings import Wordings
from rheostat_training.evaluate import OTHER, Trial
from rheostat_training.limits import STRICT, at_least, refuse, where
from rheostat_training.rows import Prompt, Request

Array = NDArray[np.float64]
Ask = Callable[[Sequence[Request], Path], Sequence[Trial]]
"""Answers requests in their order and has the scorers judge them; what was answered is kept in the folder."""

JUDGE: Final = "scorers"
MOST_POINTS: Final = 101
"""Control text writes two decimals."""


@dataclass(frozen=True, slots=True)
class CalibratePlan:
    """At how many evenly spaced control values a dial is measured, on how many prompts, and how it is checked.

    Every prompt is asked once at each control value of each dial; the other dial's is drawn at random from the same
    values. The check asks other prompts for `check_dials` values that the first ones say can be reached. Only measured
    values are ever served, and either of two for a dial between them: few points measured well beat many.
    """

    __pydantic_config__ = STRICT

    points: int = 9
    prompts: int = 200
    check_dials: int = 5
    resamples: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(
            at_least(self, 2, "points", "prompts", "check_dials"),
            at_least(self, 1, "resamples"),
            where(self.points > MOST_POINTS, f"points is {self.points}; control text tells {MOST_POINTS} values apart"),
        )


@dataclass(frozen=True, slots=True)
class Check:
    """A dial value, and the mean score measured with it."""

    asked: float
    reached: float

    @property
    def miss(self) -> float:
        return abs(self.reached - self.asked)


@dataclass(frozen=True, slots=True)
class Checked:
    """Checks of each dial: `before` at the curve's own points, made monotone; `after` on prompts that no curve saw.

    `unjudged` of the `answers` to curves and checks could not be judged, and have no part in either.
    """

    before: Mapping[DialName, tuple[Check, ...]]
    after: Mapping[DialName, tuple[Check, ...]]
    answers: int = 0
    unjudged: int = 0

    def misses(self) -> dict[DialName, dict[str, float | None]]:
        """By dial, "before" and "after": the largest difference of dial and mean score; None where none was judged."""
        return {
            dial: {
                when: max((round(check.miss, 4) for check in found[dial]), default=None)
                for when, found in (("before", self.before), ("after", self.after))
            }
            for dial in self.before
        }

    def largest_miss(self) -> dict[str, float | None]:
        """By "before" and "after", the largest over both dials."""
        each = self.misses().values()
        return {
            when: max((miss for by in each if (miss := by[when]) is not None), default=None)
            for when in ("before", "after")
        }


@dataclass(slots=True)
class Counting:
    """Asks, and counts the answers and those of them that could not be judged."""

    ask: Ask
    answers: int = 0
    unjudged: int = 0

    def __call__(self, requests: Sequence[Request], folder: Path) -> Sequence[Trial]:
        found = self.ask(requests, folder)
        self.answers += len(found)
        self.unjudged += sum(not trial.judged for trial in found)
        return found


class NothingToCalibrate(ValueError):
    """Too few answers could be judged for a curve; the message says which dial's and how many."""


def control_values(count: int) -> tuple[float, ...]:
    """Evenly spaced from 0 to 1, as control text writes them."""
    return tuple(round(place / (count - 1), 2) for place in range(count))


def calibration_requests(
    prompts: Sequence[Prompt], dial: DialName, values: Sequence[float], others: Sequence[float], seed: int
) -> list[Request]:
    """Every prompt at every value of a dial, the other dial drawn from `others`."""
    chance = random.Random(f"calibrate {dial} {seed}")
    return [
        Request(prompt.id, prompt.messages, _dials(dial, value, chance.choice(others)))
        for prompt in prompts
        for value in values
    ]


def fit_curve(
    trials: Sequence[Trial], dial: DialName, plan: CalibratePlan, *, prompt_version: str | None = None
) -> DialCalibration:
    """The monotone curve of a dial's mean score against its control value, with 95 % intervals over prompts.

    Means are weighted by how many answers could be judged; those that could not have no part.

    Raises:
        NothingToCalibrate: fewer than two control values have an answer that could be judged.
    """
    judged = [trial for trial in trials if trial.judged]
    ids = {prompt_id: place for place, prompt_id in enumerate(dict.fromkeys(trial.prompt_id for trial in judged))}
    values = sorted({trial.requested.as_dict()[dial] for trial in judged})
    if len(values) < 2:
        raise NothingToCalibrate(
            f"{dial}: {len(judged)} of {len(trials)} answers could be judged, at {len(values)} control values; "
            "a curve needs 2"
        )
    sums, counts = np.zeros((len(ids), len(values))), np.zeros((len(ids), len(values)))
    for trial in judged:
        cell = ids[trial.prompt_id], values.index(trial.requested.as_dict()[dial])
        sums[cell] += _score(trial, dial)
        counts[cell] += 1
    chance = np.random.default_rng(plan.seed)
    draws = chance.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=plan.resamples).astype(np.float64)
    curve = _isotonic(sums.sum(0), counts.sum(0))
    curves = np.stack([_isotonic(draw @ sums, draw @ counts) for draw in draws])
    low, high = np.nanpercentile(curves, [2.5, 97.5], axis=0)
    points = [
        CalibrationPoint(control=control, score=score, low=min(least, score), high=max(most, score))
        for control, score, least, most in zip(values, *(_levels(each) for each in (curve, low, high)), strict=True)
    ]
    return DialCalibration(points=points, judge=JUDGE, prompts=len(ids), prompt_version=prompt_version)


def check_values(curve: DialCalibration, count: int) -> tuple[float, ...]:
    """Dial values spread over the attainable range, its ends among them."""
    low, high = curve.attainable
    return tuple(round(low + (high - low) * place / (count - 1), 4) for place in range(count))


def checks(trials: Sequence[Trial], dial: DialName) -> tuple[Check, ...]:
    """How far the mean score is from each dial value that `trials` asked for.

    `requested` are the dials asked for, not the control values that they became.
    """
    found: dict[float, list[float]] = {}
    for trial in trials:
        if trial.judged:
            found.setdefault(trial.requested.as_dict()[dial], []).append(_score(trial, dial))
    return tuple(Check(asked, float(np.mean(scores))) for asked, scores in sorted(found.items()))


def measure_curves(
    ask: Ask, prompts: Mapping[str, Prompt], plan: CalibratePlan, folder: Path, *, words: Wordings | None = None
) -> dict[DialName, DialCalibration]:
    """Both dials' curves; `words` are those of the prompt mode, whose control values are its levels."""
    values = control_values(len(words.safety) if words else plan.points)
    curves: dict[DialName, DialCalibration] = {}
    for dial in DIAL_NAMES:
        requests = calibration_requests(list(prompts.values()), dial, values, values, plan.seed)
        found = ask(requests, folder / dial)
        curves[dial] = fit_curve(found, dial, plan, prompt_version=words.version if words else None)
    return curves


def measure_checks(
    ask: Ask,
    prompts: Mapping[str, Prompt],
    curves: Mapping[DialName, DialCalibration],
    plan: CalibratePlan,
    folder: Path,
) -> Checked:
    """How far the mean score is from the dial, over the attainable range, before and after calibration.

    Before it a dial is a control value, so the points of the curve tell.
    """
    after: dict[DialName, tuple[Check, ...]] = {}
    for dial in DIAL_NAMES:
        asked, others = (check_values(curves[name], plan.check_dials) for name in (dial, OTHER[dial]))
        requests = calibration_requests(list(prompts.values()), dial, asked, others, plan.seed + 1)
        wanted = [each.dials for each in requests if each.dials]
        mapped = [
            replace(each, dials=calibrated(dials, curves, each.messages))
            for each, dials in zip(requests, wanted, strict=True)
        ]
        reached = ask(mapped, folder / f"{dial}-check")
        after[dial] = checks(
            [replace(trial, requested=dials) for trial, dials in zip(reached, wanted, strict=True)], dial
        )
    return Checked({dial: _points_as_checks(curves[dial]) for dial in DIAL_NAMES}, after)


def _points_as_checks(curve: DialCalibration) -> tuple[Check, ...]:
    """What dials within the attainable range reach without a calibration."""
    low, high = curve.attainable
    return tuple(Check(point.control, point.score) for point in curve.points if low <= point.control <= high)


def _isotonic(sums: Array, counts: Array) -> Array:
    """Means made monotone by pool-adjacent-violators; a value without any answer takes its neighbours'."""
    known = counts > 0
    result: Array = np.full(len(sums), np.nan)
    result[known] = isotonic_regression(sums[known] / counts[known], weights=counts[known]).x
    places = np.arange(len(sums))
    return np.interp(places, places[known], result[known])


def _levels(values: Array) -> list[float]:
    return [round(float(value), 4) for value in values.clip(0, 1)]


def _score(trial: Trial, dial: DialName) -> float:
    score = trial.level(dial)
    if score is None:
        raise ValueError(f"the answer to prompt {trial.prompt_id!r} could not be judged; it has no {dial}")
    return score


def _dials(dial: DialName, value: float, other: float) -> Dials:
    return Dials(safety=value, helpfulness=other) if dial == "safety" else Dials(safety=other, helpfulness=value)
