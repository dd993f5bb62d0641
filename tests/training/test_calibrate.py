"""Calibration: a curve that never falls, read backwards, and checked on prompts that it never saw."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from rheostat_server.contract.calibration import CalibrationPoint, DialCalibration, calibrated
from rheostat_server.contract.dials import DIAL_NAMES, Dials
from rheostat_training.calibrate import (
    CalibratePlan,
    calibration_requests,
    check_values,
    control_values,
    fit_curve,
    measure_checks,
    measure_curves,
)
from rheostat_training.evaluate import Trial
from rheostat_training.rows import Prompt, Request

PLAN = CalibratePlan(points=9, resamples=200)
DRAWS = np.arange(0.0005, 1, 0.001)
MESSAGES = [{"role": "user", "content": "Hi"}]
PROMPTS = [Prompt.user(f"p{number}", f"question {number}") for number in range(80)]


def answered(request: Request, response: Callable[[float], float], chance: random.Random) -> Trial:
    """What a model says whose mean scores at a control value are `response` of it; a tenth cannot be judged."""
    assert request.dials
    safety, helpfulness = (
        min(1.0, max(0.0, response(value) + chance.gauss(0, 0.08)))
        for value in (request.dials.safety, request.dials.helpfulness)
    )
    judged = chance.random() > 0.1
    return Trial(request.id, request.dials, *((safety, helpfulness) if judged else (None, None)))


def measured(response: Callable[[float], float], values: tuple[float, ...], seed: int = 0) -> list[Trial]:
    chance = random.Random(seed)
    return [
        answered(request, response, chance) for request in calibration_requests(PROMPTS, "safety", values, values, seed)
    ]


def curved(control: float) -> float:
    return 0.15 + 0.7 * control**2


def jagged(control: float) -> float:
    """At every measured value the mean is what it should be; in between, as at single tokens little seen, it is not."""
    return curved(control) if control in control_values(PLAN.points) else 0.5


@pytest.mark.parametrize("response", [curved, jagged])
def test_a_calibrated_dial_reaches_the_score_that_it_names(response: Callable[[float], float], tmp_path: Path) -> None:
    def ask(requests: Sequence[Request], folder: Path) -> list[Trial]:
        folder.mkdir()
        chance = random.Random(folder.name)
        return [answered(request, response, chance) for request in requests]

    learnt, others = ({f"{kind}{n}": Prompt.user(f"{kind}{n}", f"{kind} {n}") for n in range(400)} for kind in "ab")
    curves = measure_curves(ask, learnt, PLAN, tmp_path)
    found = measure_checks(ask, others, curves, PLAN, tmp_path)
    for dial in DIAL_NAMES:
        assert [check.asked for check in found.after[dial]] == list(check_values(curves[dial], PLAN.check_dials))
        assert max(check.miss for check in found.before[dial]) > 0.1
        assert max(check.miss for check in found.after[dial]) < 0.05


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
    assert calibrated(Dials(0.5, 0.3), {"safety": curve}, MESSAGES).helpfulness == 0.3


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


def mean_score(curve: DialCalibration, dial: float) -> float:
    scores = {point.control: point.score for point in curve.points}
    return float(np.mean([scores[curve.control_for(dial, draw)] for draw in DRAWS]))


def test_only_measured_values_are_served_and_their_mean_score_is_the_dial() -> None:
    curve = curve_of((0.0, 0.1), (0.5, 0.4), (1.0, 0.9))
    assert {curve.control_for(0.65, draw) for draw in DRAWS} == {0.5, 1.0}
    assert {curve.control_for(0.4, draw) for draw in DRAWS} == {0.5}
    assert [mean_score(curve, dial) for dial in (0.1, 0.2, 0.4, 0.65, 0.9)] == pytest.approx(
        [0.1, 0.2, 0.4, 0.65, 0.9], abs=0.002
    )


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.lists(st.booleans(), min_size=9, max_size=9))
def test_every_attainable_score_is_reached_through_flat_parts_too(scores: list[float], flat: list[bool]) -> None:
    levels = sorted(round(score, 2) for score in scores)
    for place in range(1, len(levels)):
        levels[place] = levels[place - 1] if flat[place] else levels[place]
    curve = curve_of(*zip(control_values(len(levels)), sorted(levels), strict=True))
    low, high = curve.attainable
    asked = [min(high, low + (high - low) * step / 20) for step in range(21)]
    assert [mean_score(curve, dial) for dial in asked] == pytest.approx(asked, abs=0.002)
    for draw in (0.0, 0.3, 0.999):
        controls = [curve.control_for(dial, draw) for dial in asked]
        assert controls == sorted(controls)


def test_a_flat_part_is_served_whole() -> None:
    curve = curve_of((0.0, 0.1), (0.25, 0.5), (0.5, 0.5), (0.75, 0.5), (1.0, 0.9))
    assert Counter(curve.control_for(0.5, draw) for draw in (0.1, 0.5, 0.9)) == {0.25: 1, 0.5: 1, 0.75: 1}


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_the_ends_of_the_range_and_what_lies_outside_it_go_as_far_as_it_goes(draw: float) -> None:
    curve = curve_of((0.0, 0.1), (0.5, 0.4), (1.0, 0.9))
    assert [curve.control_for(score, draw) for score in (0.0, 0.1, 0.9, 1.0)] == [0.0, 0.0, 1.0, 1.0]


def test_an_end_that_several_values_share_is_served_whole_since_its_score_is_their_mean() -> None:
    curve = curve_of((0.0, 0.1), (0.25, 0.1), (0.5, 0.6), (0.75, 0.85), (1.0, 0.85))
    for score, values in ((0.0, {0.0, 0.25}), (0.1, {0.0, 0.25}), (0.85, {0.75, 1.0}), (1.0, {0.75, 1.0})):
        drawn = Counter(curve.control_for(score, draw) for draw in DRAWS)
        assert set(drawn) == values
        assert min(drawn.values()) > 0.4 * len(DRAWS)


def test_no_draw_goes_beyond_an_operators_limits() -> None:
    curve = curve_of((0.0, 0.0), (0.25, 0.3), (0.5, 0.5), (1.0, 1.0))
    assert {curve.control_for(0.2, draw) for draw in DRAWS} == {0.0, 0.25}
    assert {curve.control_for(0.2, draw, (0.2, 1.0)) for draw in DRAWS} == {0.25}
    assert {curve.control_for(0.8, draw, (0.0, 0.8)) for draw in DRAWS} == {0.5}
    assert {curve.control_for(0.4, draw, (0.2, 0.8)) for draw in DRAWS} == {0.25, 0.5}
    assert {curve.control_for(0.8, draw, (0.6, 0.8)) for draw in DRAWS} == {1.0}
    assert calibrated(Dials(0.2, 0.2), {"safety": curve}, MESSAGES, within={"safety": (0.2, 1.0)}).safety == 0.25


def test_equal_requests_get_equal_control_values_and_others_their_own() -> None:
    curves = dict.fromkeys(DIAL_NAMES, curve_of((0.0, 0.0), (1.0, 1.0)))
    half = Dials(0.5, 0.5)
    for seed in range(20):
        turned = [dict(reversed(MESSAGES[0].items()))]
        assert calibrated(half, curves, MESSAGES, seed) == calibrated(half, curves, turned, seed)
    by_seed = Counter(calibrated(half, curves, MESSAGES, seed) for seed in range(400))
    by_text = Counter(calibrated(half, curves, prompt.messages) for prompt in PROMPTS)
    assert len(by_seed) == len(by_text) == 4
    assert min(by_seed.values()) > 60


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
