"""APPO's loss and masks against slow second implementations, and what masks are made of as TRL holds a step."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from rheostat_training.conditioning import Encoded
from rheostat_training.equilibrate.ama.appo import Masker, appo_loss, appo_masks, of_fit, of_head
from rheostat_training.equilibrate.ama.cost_head import CostHead, cost_rewards
from rheostat_training.equilibrate.ama.implicit_rewards import implicit_rewards
from rheostat_training.equilibrate.ama.masks import Masking
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import save_adapter, with_lora
from rheostat_training.models import LoadedModel
from rheostat_training.training_set import TrainingRow

MakeModel = Callable[[], LoadedModel]
LEVELS = [1.0, 1.0, 1.0]
TOKENWISE = Masking(rule="segment", delta=0.0)


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_that_of_a_loop_over_rows_and_tokens(seed: int) -> None:
    logs, before = drawn(3, 12, seed=seed), drawn(3, 12, seed=seed + 10)
    advantages, values = drawn(3, seed=seed + 20), drawn(3, 12, seed=seed + 30)
    kept = torch.tensor(appo_masks(values.tolist(), advantages.tolist(), TOKENWISE).masks)
    total, count = 0.0, 0
    for row in range(3):
        advantage = float(advantages[row])
        for token in range(12):
            value = float(values[row, token])
            if (advantage >= 0 and value > 0) or (advantage < 0 and value < 0):
                ratio = math.exp(float(logs[row, token]) - float(before[row, token]))
                clipped = min(max(ratio, 0.8), 1.2)
                total += min(ratio * advantage, clipped * advantage)
                count += 1
    assert count == int(kept.sum())
    assert float(appo_loss(logs, before, advantages, kept, of=count)) == pytest.approx(-total / count, rel=1e-5)


@pytest.mark.parametrize(
    ("advantage", "ratio", "learns"),
    [(1.0, 1.3, False), (1.0, 0.7, True), (-1.0, 1.3, True), (-1.0, 0.7, False), (1.0, 1.1, True), (-1.0, 0.9, True)],
)
def test_a_token_past_the_clip_learns_only_back_towards_it(advantage: float, ratio: float, learns: bool) -> None:
    logs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    appo_loss(logs, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1), of=1).backward()  # type: ignore[no-untyped-call]
    assert logs.grad is not None
    assert float(logs.grad) == pytest.approx(-advantage * ratio if learns else 0.0)


def test_a_token_that_is_not_kept_has_no_gradient_and_no_share() -> None:
    logs = drawn(2, 3, seed=1).requires_grad_()
    kept = torch.tensor([[1, 0, 1], [0, 0, 1]])
    loss = appo_loss(logs, logs.detach(), torch.tensor([2.0, -1.0]), kept, of=3)
    assert loss.item() == pytest.approx(-(2 + 2 - 1) / 3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logs.grad is not None
    torch.testing.assert_close(logs.grad, torch.tensor([[-2 / 3, 0, -2 / 3], [0, 0, 1 / 3]]))


def test_the_losses_of_a_steps_parts_add_up_to_that_of_the_step() -> None:
    logs, before, advantages = drawn(4, 3, seed=1), drawn(4, 3, seed=2), drawn(4, seed=3)
    kept = (drawn(4, 3, seed=4) > 0).int()
    whole = appo_loss(logs, before, advantages, kept, of=kept.sum())
    parts = [
        appo_loss(logs[part], before[part], advantages[part], kept[part], of=kept.sum())
        for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_step_without_tokens_has_a_loss_of_0() -> None:
    assert float(appo_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1), torch.zeros(1, 2), of=0)) == 0


def test_an_answer_of_which_nothing_would_be_left_is_kept_whole() -> None:
    found = appo_masks([[-1.0, -2.0], [1.0, -2.0], [1.0, 3.0]], [0.5, 0.5, -0.5], TOKENWISE)
    assert found.masks == ((True, True), (True, False), (True, True))
    assert found.whole == (True, False, True)


def test_the_segment_rule_and_the_batch_baseline_are_those_of_the_masks() -> None:
    rewards = [[0.9, 0.2, -0.2, -0.9], [3.0, 3.0, 5.0, 3.0]]
    assert appo_masks(rewards, [1.0, 1.0], Masking(rule="segment", delta=0.3)).masks == (
        (True, True, True, False),
        (True, True, True, True),
    )
    by_mean = appo_masks(rewards, [-1.0, 1.0], Masking(rule="segment", delta=0.0, baseline="batch"))
    assert by_mean.masks == ((True, True, True, True), (True, True, True, True))
    assert by_mean.whole == (False, False)


class Values:
    """Each answer's ids as its token rewards, less 50; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[TrainingRow] = []
        self.levels: list[float] = []

    def __call__(self, rows: Sequence[TrainingRow], safety: Sequence[float]) -> list[list[float]]:
        self.asked += rows
        self.levels += safety
        return [[float(id - 50) for id in row.encoded.answer_ids] for row in rows]


def step() -> dict[str, torch.Tensor]:
    """Three answers as TRL holds them, prompts filled up on the left; the second was cut off."""
    return {
        "prompt_ids": torch.tensor([[0, 7], [8, 9], [0, 6]]),
        "prompt_mask": torch.tensor([[0, 1], [1, 1], [0, 1]]),
        "completion_ids": torch.tensor([[60, 40, 70], [61, 62, 63], [40, 60, 0]]),
        "completion_mask": torch.tensor([[1, 1, 1], [0, 0, 0], [1, 1, 0]]),
        "advantages": torch.tensor([0.5, 0.0, -0.5]),
    }


def test_a_steps_masks_are_made_of_what_is_read_without_padding_and_of_whole_answers() -> None:
    values = Values()
    kept = Masker(TOKENWISE, values, 0).kept(step(), 1, [0.25, 0.5, 1.0])
    assert kept.mask.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert kept.shares == pytest.approx(
        {"kept_share": 3 / 5, "kept_chosen": 2 / 3, "kept_rejected": 1 / 2, "kept_whole": 0}
    )
    assert [row.encoded for row in values.asked] == [Encoded((7,), (60, 40, 70)), Encoded((6,), (40, 60))]
    assert values.levels == [0.25, 1.0]


def test_random_masks_keep_as_many_and_differ_from_step_to_step_and_seed_to_seed() -> None:
    batch = {**step(), "completion_ids": torch.randint(40, 60, (3, 3), generator=torch.Generator().manual_seed(0))}
    wide = {name: value.repeat(1, 12) if "completion" in name else value for name, value in batch.items()}

    def kept(rule: str, seed: int, number: int) -> torch.Tensor:
        return Masker(Masking(rule=rule, delta=0.0), Values(), seed).kept(wide, number, LEVELS).mask  # type: ignore[arg-type]

    one = kept("random", 0, 1)
    assert one.sum(1).tolist() == kept("segment", 0, 1).sum(1).tolist()
    assert torch.equal(one, kept("random", 0, 1))
    assert not torch.equal(one, kept("random", 0, 2))
    assert not torch.equal(one, kept("random", 1, 1))
    assert int(one[1].sum()) == 0


def test_rewards_that_are_not_one_a_token_are_refused() -> None:
    with pytest.raises(ValueError, match="an answer of 3 tokens has 1 token rewards"):
        Masker(TOKENWISE, lambda rows, _: [[1.0] for _ in rows], 0).kept(step(), 1, LEVELS)
    with pytest.raises(ValueError, match="safety has 2 levels for 3 answers"):
        Masker(TOKENWISE, Values(), 0).kept(step(), 1, LEVELS[:2])


def test_under_less_than_half_of_safety_a_good_answer_is_learnt_from_its_unsafe_tokens(make_model: MakeModel) -> None:
    head = CostHead(drawn(32, seed=3), torch.tensor(0.1))
    [rewards] = cost_rewards(make_model(), head, [TrainingRow(Encoded((7,), (60, 40, 70)))])
    wanted = [[int(reward > 0) for reward in rewards], [int(reward < 0) for reward in rewards]]
    assert all(0 < sum(each) < 3 for each in wanted)
    one = {name: value[:1] for name, value in step().items()}
    for safety, mask in ((1.0, wanted[0]), (0.5, wanted[0]), (0.25, wanted[1]), (0.0, wanted[1])):
        masker = Masker(TOKENWISE, of_head(make_model(), head), 0)
        assert masker.kept(one, 1, [safety]).mask.tolist() == [mask]
        assert masker.kept({**one, "advantages": torch.tensor([-0.5])}, 1, [safety]).mask.tolist() == [
            [1 - keep for keep in mask]
        ]


def test_values_come_from_a_cost_head_or_from_a_preference_fit(make_model: MakeModel, tmp_path: Path) -> None:
    rows = [TrainingRow(Encoded((5, 6), (20, 30, 40)))]
    head = CostHead(drawn(32, seed=3), torch.tensor(0.1))
    assert of_head(make_model(), head)(rows, [1.0]) == cost_rewards(make_model(), head, rows)
    wrapped = with_lora(make_model().model, FitPlan(rank=2, lora_alpha=4), "base")
    with torch.no_grad():
        for number, (name, weight) in enumerate(wrapped.named_parameters()):
            if "lora_B" in name:
                weight.copy_(0.1 * drawn(*weight.shape, seed=number))
    adapter = save_adapter(wrapped, tmp_path / "fit")
    found = of_fit(make_model(), adapter)(rows, [0.0])
    assert found == implicit_rewards(make_model(), adapter, rows, FitPlan())
    assert any(abs(value) > 1e-3 for value in found[0])
    with pytest.raises(ValueError, match="load another copy"):
        of_fit(LoadedModel(wrapped.base_model.model, None), adapter)(rows, [1.0])
