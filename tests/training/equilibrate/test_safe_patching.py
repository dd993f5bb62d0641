"""SafePatching's arithmetic against slow second implementations."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat_training.equilibrate.methods.safe_patching import (
    Loosens,
    SafePatchPlan,
    Side,
    ascent_loss,
    check_protects,
    combined,
    low_rank,
    retained,
    top_entries,
)


def drawn(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.001, 0.03, 0.2, 1.0])
def test_the_index_set_is_that_of_a_loop_over_all_entries(share: float) -> None:
    importance = drawn(7, 9).abs()
    cells = [(float(importance[row, column]), row, column) for row in range(7) for column in range(9)]
    best = sorted(cells, key=lambda cell: (-cell[0], cell[1], cell[2]))[: max(1, round(share * 63))]
    wanted = {(row, column) for _, row, column in best}
    chosen = top_entries(importance, share)
    assert {(row, column) for row in range(7) for column in range(9) if chosen[row, column]} == wanted


def test_of_equally_important_entries_the_first_are_taken() -> None:
    assert top_entries(torch.ones(2, 3), 0.5).tolist() == [[True, True, True], [False, False, False]]


def test_the_patch_is_that_of_a_loop_over_all_entries() -> None:
    enhance, loosen = drawn(5, 6, 1), drawn(5, 6, 2)
    ours, theirs = top_entries(drawn(5, 6, 3).abs(), 0.5), top_entries(drawn(5, 6, 4).abs(), 0.4)
    found = combined(Side(enhance, ours, 0.7), Side(loosen, theirs, 0.2))
    for row in range(5):
        for column in range(6):
            mine, other = bool(ours[row, column]), bool(theirs[row, column])
            wanted = 0.0
            if mine and not other:
                wanted = 0.7 * float(enhance[row, column])
            if other and not mine:
                wanted = 0.2 * float(loosen[row, column])
            assert float(found[row, column]) == pytest.approx(wanted)
    assert bool((ours & theirs).any())


def test_entries_are_retained_at_random_and_stay_what_they_are() -> None:
    patch = drawn(60, 50)
    kept = retained(patch, 0.3, torch.Generator().manual_seed(3))
    assert torch.equal(kept, retained(patch, 0.3, torch.Generator().manual_seed(3)))
    assert not torch.equal(kept, retained(patch, 0.3, torch.Generator().manual_seed(4)))
    there = kept != 0
    assert torch.equal(kept[there], patch[there])
    assert float(there.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(retained(patch, 1.0, torch.Generator().manual_seed(3)), patch)


def test_ascent_is_bounded_and_has_no_gradient_past_its_bound() -> None:
    losses = torch.tensor([1.0, 4.0, 2.5], requires_grad=True)
    loss = ascent_loss(losses, torch.tensor([0.5, 1.0, 1.0]), 2.0)
    assert loss.item() == pytest.approx(-(1.0 + 3.0 + 2.5) / 3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([-1 / 3, 0.0, -1 / 3])


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_low_rank_patch_errs_by_the_singular_values_left_out_and_no_other_errs_less(rank: int) -> None:
    matrix = drawn(9, 12)
    found = low_rank(matrix, rank)
    error = float((matrix - found.b @ found.a).square().sum())
    gram = torch.linalg.eigvalsh((matrix @ matrix.T).double()).flip(0)
    assert error == pytest.approx(float(gram[rank:].sum()), rel=1e-3)
    assert found.energy == pytest.approx(float(matrix.square().sum()), rel=1e-5)
    assert found.energy - found.kept == pytest.approx(error, rel=1e-3)
    for seed in range(30):
        columns = torch.linalg.qr(drawn(9, rank, seed + 50))[0]
        assert float((matrix - columns @ (columns.T @ matrix)).square().sum()) >= error


def test_a_layer_narrower_than_the_rank_is_kept_whole() -> None:
    matrix = drawn(3, 5)
    found = low_rank(matrix, 8)
    assert (found.a.shape, found.b.shape) == ((8, 5), (3, 8))
    assert torch.allclose(found.b @ found.a, matrix, atol=1e-5)


def test_a_patch_that_loosens_more_than_it_protects_is_refused() -> None:
    check_protects(1.0, 1.0)
    with pytest.raises(Loosens, match="75% of the patch's energy"):
        check_protects(1.0, 3.0)


def test_a_patch_that_changes_nothing_against_unsafe_answers_is_refused() -> None:
    for loosens in (0.0, 1.0):
        with pytest.raises(ValueError, match="lower top_loosen or top_enhance, or raise retention"):
            check_protects(0.0, loosens)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"beta": 1.5}, "beta is 1.5; it must be at most alpha, 1.0"),
        ({"alpha": 0.0, "beta": 0.0}, "alpha is 0.0; it must be above 0"),
        ({"beta": -0.1}, "beta"),
        ({"top_loosen": 0.05}, "top_loosen is 0.05; it must be at most top_enhance, 0.03"),
        ({"retention": 0.0}, "retention"),
        ({"retention": 1.2}, "retention is 1.2; it must be at most 1"),
        ({"ascent_margin": 0.0}, "ascent_margin"),
        ({"ascent_margin": math.nan}, "ascent_margin"),
        ({"export_rank": 0}, "export_rank"),
        ({"seed": -1}, "seed"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_the_fields_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SafePatchPlan(**wrong)
