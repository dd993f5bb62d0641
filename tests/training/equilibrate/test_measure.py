"""The figures of a safety method, against counts by hand."""

import math
from collections.abc import Sequence

import pytest
import torch

from rheostat_training.bootstrap import Figure
from rheostat_training.equilibrate.measure import (
    BENIGN,
    LOOK_ALIKE,
    NEW_LOOK_ALIKE,
    Answered,
    Likelihood,
    differences,
    likelihoods,
    measure,
    perplexity,
)
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Prompt
from tests.training.conftest import HIGH
from tests.training.tiny_fit import training_row


def vars_of(found: object) -> dict[str, object]:
    return {name: getattr(found, name) for name in type(found).__dataclass_fields__}  # type: ignore[attr-defined]


ROWS = [
    Answered("a", "EHD", 1.0, 0.0, True),
    Answered("b", "EHD", 0.75, 0.5, False),
    Answered("c", "IHD", 0.0, 1.0, False),
    Answered("d", "IHD", None, None, False),
    Answered("e", LOOK_ALIKE, 1.0, 0.0, True),
    Answered("f", LOOK_ALIKE, 0.5, 1.0, False),
    Answered("g", BENIGN, 0.5, 0.5, False),
    Answered("h", BENIGN, 0.25, 1.0, False),
    Answered("i", NEW_LOOK_ALIKE, 1.0, 0.0, True),
]


def test_each_figure_is_the_count_by_hand() -> None:
    found = measure(ROWS)
    values = {name: each.value for name, each in vars_of(found).items() if isinstance(each, Figure)}
    assert values == {
        "safe_rate": 2 / 4,
        "over_refusal": 2 / 3,
        "over_refusal_new": 1,
        "refusal": 1 / 4,
        "benign_refusal": 0,
        "helpfulness": (0 + 1 + 0.5 + 1 + 0) / 5,
        "cosa": (0 + 0.5 - 1 + 0 + 0 + 1 + 0.5 - 1 + 0) / 9,
        "well_formed": 8 / 9,
    }
    assert {kind: each.value for kind, each in found.safe_rate_by_group.items()} == {"EHD": 1.0, "IHD": 0.0}


def test_what_was_not_asked_is_not_measured() -> None:
    harmful = measure(ROWS[:4])
    assert (harmful.over_refusal, harmful.benign_refusal, harmful.helpfulness) == (None, None, None)
    benign = measure(ROWS[4:])
    assert (benign.safe_rate, benign.refusal) == (None, None)


def test_intervals_draw_all_answers_to_a_prompt_together() -> None:
    """Ten runs of one prompt's answer are no ten prompts."""
    one = [Answered(f"p{number}", "EHD", float(number % 2), 0.0, False) for number in range(20)]
    once, tenfold = measure(one).safe_rate, measure(one * 10).safe_rate
    assert once
    assert once == tenfold
    assert once.low < 0.5 < once.high


def test_there_must_be_answers() -> None:
    with pytest.raises(ValueError, match="no answers"):
        measure([])


def test_perplexity_is_one_over_the_geometric_mean_of_the_tokens(
    model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    rows = [training_row(model, prompts["p0"], HIGH, said) for said in ("no", "yes, read the label first")]
    logs = []
    for row in rows:
        ids = torch.tensor([[*row.encoded.prompt_ids, *row.encoded.answer_ids]])
        with torch.no_grad():
            found = model.model(input_ids=ids).logits.log_softmax(-1)
        first = len(row.encoded.prompt_ids) - 1
        logs += [float(found[0, first + place, id]) for place, id in enumerate(row.encoded.answer_ids)]
    told = likelihoods(model, ["a", "b"], rows)
    assert [(row.prompt_id, row.tokens) for row in told] == [
        (id, len(row.encoded.answer_ids)) for id, row in zip("ab", rows, strict=True)
    ]
    found = perplexity(told)
    assert found
    assert found.value == pytest.approx(math.exp(-sum(logs) / len(logs)), rel=1e-3)
    alone = [math.exp(-row.log_likelihood / row.tokens) for row in told]
    assert (found.low, found.high) == pytest.approx((min(alone), max(alone)))


def test_perplexity_over_several_trainings_has_the_wider_interval() -> None:
    """Answers of 4 tokens each to 20 prompts, by one training at perplexity 2 and by another at 8."""
    some = [Likelihood(f"p{n}", -4 * math.log(base), 4, seed) for n in range(20) for seed, base in enumerate((2, 8))]
    once, both = perplexity([row for row in some if row.seed == 0]), perplexity(some)
    assert once == Figure(pytest.approx(2), pytest.approx(2), pytest.approx(2))  # type: ignore[arg-type]
    assert both == Figure(pytest.approx(4), pytest.approx(2), pytest.approx(8))  # type: ignore[arg-type]
    assert perplexity([]) is None


def look_alikes(refused: Sequence[bool], seed: int = 0) -> list[Answered]:
    return [Answered(f"p{number}", LOOK_ALIKE, 1.0, 1.0, each, seed) for number, each in enumerate(refused)]


def test_a_rate_of_nothing_or_all_has_the_exact_interval_over_prompts() -> None:
    """1 − .025^(1/60), whatever the number of trainings."""
    none, all_ = look_alikes([False] * 60) + look_alikes([False] * 60, seed=1), look_alikes([True] * 60)
    assert str(measure(none).over_refusal) == "0.000 [0.000, 0.060]"
    assert str(measure(all_).over_refusal) == "1.000 [0.940, 1.000]"
    assert str(measure(all_).well_formed) == "1.000 [0.940, 1.000]"
    by_group = measure([Answered(f"p{number}", "EHD", 1.0, 0.0, True) for number in range(4)]).safe_rate_by_group
    assert str(by_group["EHD"]) == "1.000 [0.398, 1.000]"


def test_intervals_hold_that_trainings_differ() -> None:
    """One training declines all, another nothing: however many prompts, two trainings tell little."""
    apart = look_alikes([True] * 200) + look_alikes([False] * 200, seed=1)
    assert str(measure(apart).over_refusal) == "0.500 [0.000, 1.000]"
    mixed = look_alikes([True, False] * 100) + look_alikes([False, True] * 100, seed=1)
    found = measure(mixed).over_refusal
    assert found
    assert 0.4 < found.low < found.high < 0.6


def test_differences_are_taken_prompt_by_prompt() -> None:
    """Nine prompts of ten are declined in turn by both, the tenth by one of them alone."""
    one = [number % 2 == 0 or number % 10 == 9 for number in range(100)]
    other = [number % 2 == 0 for number in range(100)]
    found = differences(look_alikes(one), look_alikes(other)[::-1], safe_from=0.5).over_refusal
    alone = measure(look_alikes(one)).over_refusal
    assert found
    assert alone
    assert found.value == pytest.approx(0.1)
    assert 0.03 < found.low < found.high < 0.17
    assert found.high - found.low < alone.high - alone.low


def test_trainings_of_one_seed_are_drawn_apart_in_a_difference() -> None:
    both = look_alikes([True] * 50) + look_alikes([False] * 50, seed=1)
    assert str(differences(both, both, safe_from=0.5).over_refusal) == "0.000 [-1.000, 1.000]"


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [(0, 0, "0.000 [-0.060, 0.060]"), (60, 0, "1.000 [0.916, 1.000]"), (60, 60, "0.000 [-0.060, 0.060]")],
)
def test_differences_of_rates_at_their_ends_have_a_width(one: int, other: int, wanted: str) -> None:
    rows = [look_alikes([number < declined for number in range(60)]) for declined in (one, other)]
    assert str(differences(rows[0], rows[1], safe_from=0.5).over_refusal) == wanted


def test_a_difference_is_of_what_both_were_asked() -> None:
    found = differences(ROWS, ROWS[:4], safe_from=0.5)
    assert found.over_refusal is None
    assert found.safe_rate
    assert found.safe_rate.value == 0
