"""MOEC: extremes, levels reached, quantising and balance."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.contract.dials import Dials
from rheostat_training.distil import (
    MAPPINGS,
    DistilPlan,
    distil,
    map_minmax,
    map_quantile,
    quantise,
    standardise,
)
from rheostat_training.rows import Scored

CORNERS = DistilPlan(levels=3, cells="corners", margin=0.5)


def noisy(prompts: int = 20, answers: int = 16, seed: int = 0) -> list[Scored]:
    chance = random.Random(seed)
    return [
        Scored(f"p{prompt}", f"answer {prompt} {answer}", chance.random(), chance.random())
        for prompt in range(prompts)
        for answer in range(answers)
    ]


def test_corners_are_those_of_a_loop_over_every_answer() -> None:
    rows = noisy()
    z_safety = dict(zip(rows, standardise(np.array([row.safety for row in rows])).tolist(), strict=True))
    z_helpful = dict(zip(rows, standardise(np.array([row.helpfulness for row in rows])).tolist(), strict=True))
    wanted = set()
    for _, group in itertools.groupby(rows, key=lambda row: row.prompt_id):
        answers = list(group)
        for a, b in itertools.product((-1, 1), repeat=2):
            leans = {row: a * z_helpful[row] + b * z_safety[row] for row in answers}
            if max(leans.values()) + min(leans.values()) * -1 >= CORNERS.margin:
                wanted.add(max(leans, key=lambda row: leans[row]).answer)
    assert {example.answer for example in distil(rows, CORNERS).examples} == wanted


def test_a_corner_that_does_not_lead_its_opposite_by_the_margin_is_left_out() -> None:
    flat = [Scored("p", f"a{number}", 0.5 + number / 1000, 0.5) for number in range(4)]
    wide = [Scored("q", f"b{number}", number / 3, number / 3) for number in range(4)]
    kept = distil(flat + wide, CORNERS).examples
    assert {example.prompt_id for example in kept} == {"q"}


def test_an_answer_is_labelled_by_the_level_it_reached_and_not_by_the_corner_it_was_sought_for() -> None:
    rows = [Scored("p", "both high", 0.9, 0.9), Scored("p", "both middling", 0.6, 0.5), *noisy(4)]
    dials = {example.answer: example.dials for example in distil(rows, CORNERS).examples}
    assert dials["both high"] == Dials(safety=1.0, helpfulness=1.0)
    assert dials["both middling"] == Dials(safety=0.5, helpfulness=0.5)


def test_every_level_that_some_answer_reached_is_learned() -> None:
    plan = DistilPlan(levels=3)
    rows = noisy(30, 40)
    reached = {(row.prompt_id, quantise(row.safety or 0.0, 3), quantise(row.helpfulness or 0.0, 3)) for row in rows}
    learned = {
        (example.prompt_id, example.dials.safety, example.dials.helpfulness) for example in distil(rows, plan).examples
    }
    assert learned == reached


def test_the_answer_that_stands_for_a_level_is_the_nearest_to_it() -> None:
    middle = [Scored("p", "near", 0.52, 0.5), Scored("p", "nearer", 0.5, 0.5), Scored("p", "far", 0.6, 0.6)]
    corners = [Scored("p", f"c{s}{h}", float(s), float(h)) for s, h in itertools.product((0, 1), repeat=2)]
    chosen = {example.answer for example in distil(middle + corners, DistilPlan(levels=3)).examples}
    assert chosen & {"near", "nearer", "far"} == {"nearer"}


def test_no_answer_of_a_prompt_is_learned_twice() -> None:
    rows = noisy(5) + noisy(5)
    examples = distil(rows, DistilPlan(levels=5)).examples
    assert max(Counter((example.prompt_id, example.answer) for example in examples).values()) == 1


def test_an_answer_that_could_not_be_judged_is_counted_and_never_learned() -> None:
    rows = [*noisy(3), Scored("p0", "unjudged", None, None), Scored("p0", "half judged", 0.9, None)]
    result = distil(rows, DistilPlan())
    assert result.unjudged == 2
    assert not {"unjudged", "half judged"} & {example.answer for example in result.examples}


def test_per_cell_bounds_every_combination_of_levels() -> None:
    result = distil(noisy(60), DistilPlan(levels=3, per_cell=7))
    assert set(result.counts.values()) == {7}
    assert sum(result.counts.values()) == len(result.examples)


def test_the_same_seed_keeps_the_same_examples() -> None:
    rows = noisy(60)
    assert distil(rows, DistilPlan(per_cell=3)) == distil(rows, DistilPlan(per_cell=3))


def test_mismatched_answers_have_the_dials_of_another_answer_of_their_prompt() -> None:
    rows = [*noisy(30, 40), Scored("alone", "the only answer", 0.2, 0.9)]
    matched = {(row.prompt_id, row.answer): row.dials for row in distil(rows, DistilPlan(levels=3)).examples}
    mismatched = distil(rows, DistilPlan(levels=3, control="mismatched"))
    found = {(row.prompt_id, row.answer): row.dials for row in mismatched.examples}
    assert found.keys() == {key for key in matched if key[0] != "alone"}
    assert all(found[key] != matched[key] for key in found)
    for prompt in {key[0] for key in found}:
        here = [key for key in found if key[0] == prompt]
        assert Counter(found[key] for key in here) == Counter(matched[key] for key in here)


def test_nothing_scored_gives_nothing() -> None:
    assert distil([], DistilPlan()).examples == ()


@given(st.floats(0, 1), st.integers(2, 11))
def test_quantising_gives_the_nearest_level_and_keeps_levels(value: float, levels: int) -> None:
    nearest = quantise(value, levels)
    assert abs(nearest - value) <= 0.5 / (levels - 1) + 1e-9
    assert quantise(nearest, levels) == nearest


@pytest.mark.parametrize("name", list(MAPPINGS))
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_every_mapping_stays_in_range_and_keeps_the_order(name: str, values: list[float]) -> None:
    mapped = MAPPINGS[name](np.array(values))
    assert ((mapped >= 0) & (mapped <= 1)).all()
    order = np.argsort(values)
    assert (np.diff(mapped[order]) >= -1e-12).all()


def test_minmax_and_quantile_reach_both_ends() -> None:
    values = np.array([0.4, 0.5, 0.45, 0.9])
    assert map_minmax(values).tolist() == pytest.approx([0, 0.2, 0.1, 1])
    assert map_quantile(values).tolist() == pytest.approx([0, 2 / 3, 1 / 3, 1])


def test_equal_scores_share_a_quantile() -> None:
    assert map_quantile(np.array([0.0, 0.3, 0.3, 1.0])).tolist() == pytest.approx([0, 0.5, 0.5, 1])


@pytest.mark.parametrize(
    "wrong", [{"levels": 1}, {"mapping": "log"}, {"cells": "asked"}, {"per_cell": 0}, {"control": "none"}]
)
def test_a_plan_that_cannot_be_is_refused_by_the_fields_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DistilPlan(**wrong)  # type: ignore[arg-type]
