"""Intervals: of what varies with prompts and with seeds of training, of rates that do not vary, of differences."""

import numpy as np
import pytest
from scipy.stats import binomtest

from rheostat_training.bootstrap import Bootstrap, Figure, apart, exact_at_the_ends


@pytest.mark.parametrize("clusters", [1, 10, 60])
@pytest.mark.parametrize("rate", [0, 1])
def test_a_rate_at_an_end_has_the_exact_interval(rate: int, clusters: int) -> None:
    found = exact_at_the_ends(Figure(rate, rate, rate), clusters)
    wanted = binomtest(rate * clusters, clusters).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_a_rate_between_keeps_its_interval() -> None:
    assert exact_at_the_ends(Figure(0.5, 0.4, 0.6), 10) == Figure(0.5, 0.4, 0.6)


def test_squares_of_arms_are_added_in_a_difference() -> None:
    found = apart(Figure(0.75, 0.71, 0.78), Figure(0.5, 0.46, 0.53))
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.20, 0.30))


def test_prompts_are_drawn_as_before_and_every_seed_alike_for_all_of_them() -> None:
    """Each count is that of its prompt times that of its seed."""
    prompts = Bootstrap.over(4, resamples=50, seed=3)
    counts = prompts.by_seed(3, np.random.default_rng(0)).draws.reshape(51, 4, 3)
    seeds = counts.sum(1) / 4
    assert (seeds.sum(1) == 3).all()
    assert (counts == prompts.draws[:, :, None] * seeds[:, None, :]).all()
    assert (counts[0] == 1).all()
    assert len(np.unique(seeds, axis=0)) > 5


def test_one_seed_changes_nothing() -> None:
    prompts = Bootstrap.over(4, resamples=50, seed=3)
    assert (prompts.by_seed(1, np.random.default_rng(0)).draws == prompts.draws).all()
