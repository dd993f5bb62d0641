"""Calibration: a curve that never falls, read backwards, and checked on prompts that it never saw."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from rheostat_server.contract.calibration import CalibrationPoint, DialCalibration, calibrated
from rheostat_server.contract.dials import Dials
from rheostat_training.calibrate import (
    CalibratePlan,
    calibration_requests,
    check_values,
    checks,
    control_values,
    fit_curve,
)
from rheostat_training.evaluate import Trial
from rheostat_training.rows import Prompt

PLAN = CalibratePlan(points=9, resamples=200)
PROMPTS = [Prompt.user(f"p{number}", f"question {number}") for number in range(80)]


def measured(response: Callable[[float], float], values: tuple[float, ...], seed: int = 0) -> list[Trial]:
    """Trials of a model whose mean safety at a control value is `response` of it; a tenth cannot be judged."""
    chance = random.Random(seed)
    found = []
    for request in calibration_requests(PROMPTS, "safety", values, values, seed):
        assert request.dials
        score = min(1.0, max(0.0, response(request.dials.safety) + chance.gauss(0, 0.08)))
        unjudged = chance.random() < 0.1
        found.append(Trial(request.id, request.dials, None if unjudged else score, None if unjudged else 0.5))
    return found


def curved(control: float) -> float:
    return 0.15 + 0.7 * control**2


def test_a_calibrated_dial_reaches_the_score_that_it_names() -> None:
    values = control_values(PLAN.points)
    curve = fit_curve(measured(curved, values), "safety", PLAN)
    before = checks(measured(curved, check_values(curve, 5), seed=1), "safety")
    asked = check_values(curve, 5)
    controls = {curve.control_for(dial): dial for dial in asked}
    again = [
        Trial(trial.prompt_id, Dials(controls[trial.requested.safety], 0.5), trial.safety, trial.helpfulness)
        for trial in measured(curved, tuple(controls), seed=2)
    ]
    after = checks(again, "safety")
    assert [check.asked for check in after] == list(asked)
    assert max(check.miss for check in before) > 0.1
    assert max(check.miss for check in after) < 0.05


def test_the_attainable_range_and_the_band_are_those_of_the_means() -> None:
    curve = fit_curve(measured(curved, control_values(9)), "safety", PLAN)
    assert curve.attainable == pytest.approx((0.15, 0.85), abs=0.03)
    assert (curve.judge, curve.prompts) == ("scorers", len(PROMPTS))
    for point in curve.points:
        assert point.low <= point.score <= point.high
        assert point.low - 0.03 <= curved(point.control) <= point.high + 0.03
        assert point.high - point.low < 0.1


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12))
def test_the_curve_is_the_isotonic_regression_of_the_means(scores: list[float]) -> None:
    values = control_values(len(scores))
    trials = [Trial("p", Dials(value, 0.0), score, 0.0) for value, score in zip(values, scores, strict=True)]
    curve = fit_curve(trials, "safety", CalibratePlan(resamples=2))
    wanted = IsotonicRegression().fit_transform(np.array(values), np.array(scores))
    assert [point.score for point in curve.points] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_response_that_falls_becomes_one_flat_level_that_every_dial_reads_in_the_middle() -> None:
    curve = fit_curve(measured(lambda control: 0.6 - 0.2 * control, control_values(5)), "safety", PLAN)
    low, high = curve.attainable
    assert high - low < 0.03
    assert calibrated(Dials(0.5, 0.3), {"safety": curve}).helpfulness == 0.3


def test_nothing_that_could_be_judged_is_an_error_and_no_curve() -> None:
    trials = [Trial("p", Dials(value, 0.0), None, None) for value in (0.0, 1.0)]
    with pytest.raises(ValueError, match="could be judged"):
        fit_curve(trials, "safety", PLAN)


def test_each_prompt_is_asked_at_every_value_and_the_other_dial_is_drawn() -> None:
    requests = calibration_requests(PROMPTS, "helpfulness", (0.0, 0.5, 1.0), (0.25, 0.75), seed=3)
    assert len(requests) == 3 * len(PROMPTS)
    assert {request.dials.safety for request in requests if request.dials} == {0.25, 0.75}
    assert requests == calibration_requests(PROMPTS, "helpfulness", (0.0, 0.5, 1.0), (0.25, 0.75), seed=3)


def curve_of(*points: tuple[float, float]) -> DialCalibration:
    """A curve through (control, score), with no band."""
    found = [CalibrationPoint(control=control, score=score, low=score, high=score) for control, score in points]
    return DialCalibration(points=found, judge="j", prompts=3)


def test_a_curve_reads_back_what_it_reads_forward() -> None:
    curve = curve_of((0.0, 0.1), (0.5, 0.4), (1.0, 0.9))
    for control in (0.0, 0.2, 0.5, 0.8, 1.0):
        assert curve.control_for(curve.score_at(control)) == pytest.approx(control)
    assert (curve.control_for(0.0), curve.control_for(1.0)) == (0.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.lists(st.booleans(), min_size=9, max_size=9))
def test_every_attainable_score_is_read_back_through_flat_parts_too(scores: list[float], flat: list[bool]) -> None:
    levels = sorted(round(score, 2) for score in scores)
    for place in range(1, len(levels)):
        levels[place] = levels[place - 1] if flat[place] else levels[place]
    curve = curve_of(*zip(control_values(len(levels)), sorted(levels), strict=True))
    low, high = curve.attainable
    asked = [low + (high - low) * step / 20 for step in range(21)]
    controls = [curve.control_for(score) for score in asked]
    assert [curve.score_at(control) for control in controls] == pytest.approx(asked, abs=1e-6)
    assert controls == sorted(controls)


def test_a_flat_part_is_read_in_its_middle_and_a_steep_one_beside_it_as_it_is() -> None:
    curve = curve_of((0.0, 0.1), (0.25, 0.5), (0.75, 0.5), (1.0, 0.9))
    assert [curve.control_for(score) for score in (0.3, 0.5, 0.7)] == pytest.approx([0.125, 0.5, 0.875])


def test_the_ends_of_the_range_and_what_lies_outside_it_go_as_far_as_it_goes() -> None:
    curve = curve_of((0.0, 0.1), (0.5, 0.1), (0.75, 0.9), (1.0, 0.9))
    assert [curve.control_for(score) for score in (0.0, 0.1, 0.5, 0.9, 1.0)] == [0.0, 0.0, 0.625, 1.0, 1.0]
    assert curve_of((0.0, 0.4), (1.0, 0.4)).control_for(0.7) == 0.5


@pytest.mark.parametrize(
    ("controls", "scores", "complaint"),
    [((0.0, 0.0), (0.1, 0.2), "must ascend"), ((0.0, 1.0), (0.5, 0.4), "score falls")],
)
def test_a_curve_that_is_not_monotone_is_refused(
    controls: tuple[float, ...], scores: tuple[float, ...], complaint: str
) -> None:
    points = [
        {"control": control, "score": score, "low": score, "high": score}
        for control, score in zip(controls, scores, strict=True)
    ]
    with pytest.raises(ValueError, match=complaint):
        DialCalibration.model_validate({"points": points, "judge": "j", "prompts": 3})
