"""Masks of token rewards: the figure's traces, the token rule, guards, and what they do in a step."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat_training.conditioning import Encoded
from rheostat_training.equilibrate.ama.mask_page import RewardedAnswer, RewardedPair, masked_pairs, render_masks
from rheostat_training.equilibrate.ama.masks import Mask, Masking, kept, kept_at_random, masks, share, sides
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import with_lora
from rheostat_training.models import LoadedModel
from rheostat_training.step import step_loss
from rheostat_training.training_set import StepRows, TrainingRow

REWARDS = st.lists(st.one_of(st.just(0.0), st.floats(-2, 2)), min_size=1, max_size=40)


def trace(length: int, turns: dict[int, float], *, wobble: float = 0.25, seed: int = 0) -> list[float]:
    """A trace that crosses the threshold at each turn, and elsewhere wanders within it."""
    chance = random.Random(seed)
    return [turns.get(place, chance.uniform(-wobble, wobble)) for place in range(length)]


def places(mask: Mask | None) -> list[int]:
    return [place for place, keep in enumerate(mask or ()) if keep]


def test_the_chosen_trace_of_the_papers_figure_keeps_its_three_segments() -> None:
    chosen = trace(63, {0: 0.5, 10: -0.4, 23: 0.6, 33: -0.7, 38: 0.35})
    wanted = [*range(10), *range(23, 33), *range(38, 63)]
    assert places(kept(chosen, chosen=True, delta=0.3)) == wanted


def test_the_rejected_trace_of_the_papers_figure_keeps_its_two_segments() -> None:
    rejected = trace(63, {0: 0.5, 4: -0.4, 8: 0.6, 45: -0.7, 53: 0.35}, seed=1)
    assert places(kept(rejected, chosen=False, delta=0.3)) == [*range(4, 8), *range(45, 53)]


@given(REWARDS, st.booleans())
def test_without_a_threshold_each_token_is_judged_by_itself(rewards: list[float], chosen: bool) -> None:
    alone = [reward > 0 if chosen else reward < 0 for reward in rewards]
    assert kept(rewards, chosen=chosen, delta=0) == (tuple(alone) if any(alone) else None)


def test_without_a_threshold_a_token_at_the_baseline_is_on_neither_side() -> None:
    rewards = [0.5, 0.0, -0.5, 0.0]
    assert sides(rewards, delta=0) == (1, 0, -1, 0)
    assert sides(rewards, delta=0, baseline=-0.5) == (1, 1, 0, 1)
    assert sides(rewards, delta=0.3) == (1, 1, -1, -1)


@given(REWARDS, st.floats(0, 1), st.floats(-1, 1))
def test_a_side_changes_only_where_the_threshold_is_crossed(
    rewards: list[float], delta: float, baseline: float
) -> None:
    before = 0
    for reward, side in zip(rewards, sides(rewards, delta=delta, baseline=baseline), strict=True):
        crossed = abs(reward - baseline) > delta
        assert side == ((1 if reward > baseline else -1) if crossed else before if delta else 0)
        before = side


def test_a_mask_that_would_be_empty_keeps_the_whole_side_and_is_told_of() -> None:
    rows = [([-1.0, -2.0], True), ([0.1, 0.2], False), ([1.0, -1.0, -1.0], True), ([-1.0], False)]
    found = masks(rows, Masking("segment"))
    assert found.masks == ((True, True), (True, True), (True, False, False), (True,))
    assert found.whole == (True, True, False, False)
    assert found.shares() == {"kept_share": 6 / 8, "kept_chosen": 3 / 5, "kept_rejected": 1.0, "kept_whole": 0.5}
    assert masks([([0.0, 0.0], False)], Masking("segment", delta=0)).whole == (True,)
    assert masks(rows, Masking()).shares()["kept_whole"] == 0


def test_shares_leave_out_a_side_that_is_not_there() -> None:
    found = masks([([1.0, -1.0], True)], Masking("segment"))
    assert found.shares() == {"kept_share": 0.5, "kept_chosen": 0.5, "kept_whole": 0.0}


@given(REWARDS, st.integers(0, 99))
def test_a_random_mask_keeps_as_many_tokens(rewards: list[float], seed: int) -> None:
    [mask] = masks([(rewards, True)], Masking("segment")).masks
    assert sum(kept_at_random(mask, random.Random(seed))) == sum(mask)


def test_a_random_mask_is_the_rows_own_whatever_the_step_that_draws_it() -> None:
    rewards = tuple(0.5 if place % 2 else -0.5 for place in range(20))
    rows = [TrainingRow(Encoded((5, number), (*range(10, 30),)), rewards=rewards) for number in range(3)]
    masking = Masking("random")

    def drawn(positives: tuple[int, ...], negatives: tuple[int, ...], seed: str = "0") -> list[Mask | None]:
        step = StepRows(tuple(rows[place] for place in positives), tuple(rows[place] for place in negatives))
        made = step.masked(masking, seed)
        return [row.kept for row in (*made.positives, *made.negatives)]

    first = drawn((0, 1), (2,))
    assert drawn((1,), (0, 2)) == [first[1], first[0], first[2]]
    assert len(set(first)) == 3
    assert drawn((0, 1), (2,), "1") != first


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 99))
def test_a_random_mask_of_fewer_tokens_keeps_some_of_the_same(mask: list[bool], seed: int) -> None:
    more, fewer = (kept_at_random(each, random.Random(seed)) for each in (tuple(mask), (*mask[:-1], False)))
    assert all(keep for keep, of_fewer in zip(more, fewer, strict=True) if of_fewer)


def test_the_batch_baseline_is_the_mean_over_all_tokens_of_the_step() -> None:
    rows = [([1.0, 2.0, 6.0], True), ([3.0], False)]
    by_batch = masks(rows, Masking("segment", delta=0, baseline="batch"))
    assert by_batch.masks == ((False, False, True), (True,))
    assert by_batch.whole == (False, True)
    assert masks(rows, Masking("segment", delta=0)).masks == ((True, True, True), (True,))
    assert share(by_batch.masks) == 0.5


def test_a_threshold_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="delta is -1"):
        Masking("segment", delta=-1)


def pair_step() -> StepRows:
    chosen = TrainingRow(Encoded((5, 6, 7), (8, 9, 10, 11)), rewards=(1.0, 0.0, -1.0, 0.0))
    rejected = TrainingRow(Encoded((5, 6, 7), (12, 13, 14)), rewards=(1.0, -1.0, 0.0))
    return StepRows((chosen,), (rejected,))


def test_masked_tokens_have_no_share_in_the_margin(make_model: Callable[[], LoadedModel]) -> None:
    """Against the sum over the kept tokens alone, by hand: ADPO."""
    plan = FitPlan(loss="dpo", masking=Masking("segment"), rank=2, dtype="float32")
    base = make_model()
    model = with_lora(base.model, plan, "base")
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    rows = pair_step().masked(plan.masking, "0")
    assert rows.positives[0].kept == (True, True, False, False)
    assert rows.negatives[0].kept == (False, True, True)
    assert rows.kept == pytest.approx(
        {"kept_share": 4 / 7, "kept_chosen": 1 / 2, "kept_rejected": 2 / 3, "kept_whole": 0}
    )

    def ratio(row: TrainingRow) -> torch.Tensor:
        ids = torch.tensor([[*row.encoded.prompt_ids, *row.encoded.answer_ids]])
        own = model(input_ids=ids).logits.log_softmax(-1)
        with model.disable_adapter():
            gain = own - model(input_ids=ids).logits.log_softmax(-1)
        first = len(row.encoded.prompt_ids)
        counted = [
            gain[0, first + t - 1, id] for t, id in enumerate(row.encoded.answer_ids) if row.kept and row.kept[t]
        ]
        return torch.stack(counted).sum()

    with torch.no_grad():
        margin = ratio(rows.positives[0]) - ratio(rows.negatives[0])
        wanted = -torch.nn.functional.logsigmoid(plan.beta * margin)
        assert float(step_loss(model, rows, plan)) == pytest.approx(float(wanted), rel=1e-4)


def test_rows_without_rewards_cannot_be_masked() -> None:
    step = pair_step()
    bare = replace(step, positives=(replace(step.positives[0], rewards=None),))
    with pytest.raises(ValueError, match="no rewards"):
        bare.masked(Masking("segment"), "0")


def test_heads_cut_masks_and_rewards_with_the_answer() -> None:
    head = pair_step().masked(Masking("segment"), "0").heads(2).positives[0]
    assert (head.encoded.answer_ids, head.kept, head.rewards) == ((8, 9), (True, True), (1.0, 0.0))


def test_the_page_tells_of_answers_that_are_kept_whole() -> None:
    safe, unsafe = RewardedAnswer(("a", "b"), (1.0, 0.0)), RewardedAnswer(("c", "d"), (0.0, 1.0))
    masking = Masking("segment", delta=0)
    found = masked_pairs([RewardedPair("p0", safe, unsafe)], masking, shown=1)
    assert (found.chosen_share, found.rejected_share, found.whole_share) == (0.5, 1.0, 0.5)
    assert "50 % of the answers are kept whole" in render_masks(found, masking)
    none = masked_pairs([RewardedPair("p0", safe, safe)], Masking(), shown=1)
    assert "kept whole" not in render_masks(none, Masking())
