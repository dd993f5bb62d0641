"""The figures of a safety method, against counts by hand."""

import math

import pytest
import torch

from rheostat_training.equilibrate.measure import BENIGN, LOOK_ALIKE, Answered, measure, perplexity
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Prompt
from tests.training.conftest import HIGH
from tests.training.tiny_fit import training_row

ROWS = [
    Answered("a", "EHD", 1.0, 0.0, True),
    Answered("b", "EHD", 0.75, 0.5, False),
    Answered("c", "IHD", 0.0, 1.0, False),
    Answered("d", "IHD", None, None, False),
    Answered("e", LOOK_ALIKE, 1.0, 0.0, True),
    Answered("f", LOOK_ALIKE, 0.5, 1.0, False),
    Answered("g", BENIGN, 0.5, 0.5, False),
    Answered("h", BENIGN, 0.25, 1.0, False),
]


def test_each_figure_is_the_count_by_hand() -> None:
    found = measure(ROWS)
    assert found.safe_rate.value == 2 / 4
    assert {kind: each.value for kind, each in found.safe_rate_by_group.items()} == {"EHD": 1.0, "IHD": 0.0}
    assert found.over_refusal.value == 1 / 2
    assert found.refusal.value == 1 / 4
    assert found.benign_refusal.value == 0
    assert found.helpfulness.value == (0 + 1 + 0.5 + 1) / 4
    assert found.cosa.value == (0 + 0.5 - 1 + 0 + 0 + 1 + 0.5 - 1) / 8
    assert found.well_formed.value == 7 / 8


def test_intervals_draw_all_answers_to_a_prompt_together() -> None:
    """Ten runs of one prompt's answer are no ten prompts."""
    one = [Answered(f"p{number}", "EHD", float(number % 2), 0.0, False) for number in range(20)]
    once, tenfold = measure(one).safe_rate, measure(one * 10).safe_rate
    assert (tenfold.low, tenfold.high) == (once.low, once.high)
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
    assert perplexity(model, rows) == pytest.approx(math.exp(-sum(logs) / len(logs)), rel=1e-3)
