"""Scales: each is its formula, keeps order and range, and makes no level of what is no number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.scorers.scales import Empirical, Gauge, Head, Linear, Logistic, Scale, sigmoid

THREE = ("safe", "rude", "harmful")
SCALES: list[Scale] = [
    "sigmoid",
    Linear(low=-2, high=3),
    Logistic(mean=10, spread=4),
    Empirical(quantiles=[-3, -1, -1, 0, 8]),
]
numbers = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("scale", "raw", "level"),
    [
        ("sigmoid", 0.0, 0.5),
        ("sigmoid", math.log(3), 0.75),
        (Linear(low=-2, high=2), 1.0, 0.75),
        (Linear(low=-2, high=2), 9.0, 1.0),
        (Linear(low=-2, high=2), -9.0, 0.0),
        (Logistic(mean=10, spread=4), 10.0, 0.5),
        (Logistic(mean=10, spread=4), 14.0, 1 / (1 + math.exp(-1))),
        (Empirical(quantiles=[0, 1, 3, 7, 9]), 2.0, 0.375),
        (Empirical(quantiles=[0, 1, 3, 7, 9]), 3.0, 0.5),
        (Empirical(quantiles=[0, 1, 3, 7, 9]), -0.5, 0.0),
        (Empirical(quantiles=[0, 1, 3, 7, 9]), 9.5, 1.0),
        (Empirical(quantiles=[0, 1, 1, 1, 9]), 1.0, 0.5),
        (Empirical(quantiles=[0, 0, 4]), 0.0, 0.25),
    ],
)
def test_a_scale_is_its_formula(scale: Scale, raw: float, level: float) -> None:
    assert Gauge((0,), scale).level([raw]) == pytest.approx(level)
    assert Gauge((0,), scale, invert=True).level([raw]) == pytest.approx(1 - level)


@pytest.mark.parametrize("scale", SCALES, ids=str)
@given(one=numbers, other=numbers)
def test_a_scale_keeps_range_and_order(scale: Scale, one: float, other: float) -> None:
    low, high = (Gauge((0,), scale).level([raw]) for raw in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= 1


def test_softmax_is_the_probability_of_one_label_or_of_several_together() -> None:
    outputs = [math.log(1), math.log(3), math.log(6)]
    assert Gauge.of(Head(("safe",), "softmax"), THREE).level(outputs) == pytest.approx(0.1)
    assert Gauge.of(Head((0, "rude"), "softmax"), THREE).level(outputs) == pytest.approx(0.4)
    assert Gauge.of(Head(("harmful",), "softmax", invert=True), THREE).level(outputs) == pytest.approx(0.4)
    assert Gauge.of(Head(("safe", 0), "softmax"), THREE).level([900.0, -900.0, 0.0]) == 1.0


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scale", [*SCALES, "softmax"], ids=str)
def test_what_is_no_finite_number_has_no_level(scale: Scale, broken: float) -> None:
    assert Gauge((1,), scale, invert=True).level([0.0, broken, 0.0]) is None


def test_a_broken_output_that_nobody_reads_does_no_harm() -> None:
    assert Gauge((0,), "sigmoid").level([0.0, math.nan]) == 0.5
    assert Gauge((0,), "softmax").level([0.0, math.nan]) is None


def test_an_unset_scale_of_one_logit_is_the_sigmoid() -> None:
    assert Gauge.of(Head(), ("LABEL_0",)) == Gauge((0,), "sigmoid")


def test_the_sigmoid_does_not_overflow() -> None:
    assert sigmoid(-1e6) == 0.0
    assert sigmoid(1e6) == 1.0


@pytest.mark.parametrize(
    ("head", "names", "told"),
    [
        (Head(), THREE, r"label is not given, and the model has 3 outputs; give one of safe \(0\), rude \(1\)"),
        (Head(("safe",)), THREE, "scale is not given, and the model has 3 outputs; give softmax where"),
        (Head(("bad",), "sigmoid"), THREE, r"label is 'bad'; the model's outputs are safe \(0\)"),
        (Head((3,), "sigmoid"), THREE, "label is 3; the model's outputs are"),
        (Head(("safe", "rude"), "sigmoid"), THREE, "label names 2 outputs; scale softmax adds several up"),
        (Head((), "softmax"), THREE, "label names no output; name some of"),
        (Head((0, 1, 2), "softmax"), THREE, "label names all outputs; name some of"),
        (Head((0,), "softmax"), ("LABEL_0",), "scale is softmax, and the model has one output"),
    ],
)
def test_a_head_that_does_not_fit_its_model_is_refused(head: Head, names: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Gauge.of(head, names)
