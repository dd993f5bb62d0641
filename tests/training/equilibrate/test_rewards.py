"""Token rewards from a preference fit and from a cost head, against slow second implementations."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from rheostat_training.conditioning import Encoded
from rheostat_training.equilibrate.ama.cost_head import (
    CostHead,
    CostPair,
    CostPlan,
    cost_loss,
    cost_rewards,
    fit_cost_head,
)
from rheostat_training.equilibrate.ama.implicit_rewards import implicit_rewards, pair_rows, with_rewards
from rheostat_training.fit import fit_on
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import ADAPTER
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Pair, Prompt
from rheostat_training.training_set import TrainingRow, build_pair_set

MakeModel = Callable[[], LoadedModel]
PAIRS = [
    Pair("p0", "yes, read the label first and open the window", "no, I do not think so"),
    Pair("p1", "no", "yes"),
    Pair("p2", "yes, read the label first", "no, no"),
]
PLAN = FitPlan(
    loss="dpo", rank=2, lora_alpha=4, steps=3, batch_rows=3, warmup_steps=1, learning_rate=1e-2, dtype="float32"
)


def test_a_fits_rewards_are_its_gains_over_the_base_token_by_token(
    make_model: MakeModel, prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    positives = build_pair_set(make_model(), prompts, PAIRS)
    fit_on(make_model(), positives, PLAN, tmp_path, {}, report_to="none")
    base = make_model()
    before = base.digest()
    rows = pair_rows(positives)
    found = implicit_rewards(base, tmp_path / ADAPTER, rows, PLAN, batch_rows=4)
    assert base.digest() == before
    alone = make_model().model
    adapted = PeftModel.from_pretrained(make_model().model, tmp_path / ADAPTER).eval()
    for row, rewards in zip(rows, found, strict=True):
        ids = torch.tensor([[*row.encoded.prompt_ids, *row.encoded.answer_ids]])
        with torch.no_grad():
            gain = adapted(input_ids=ids).logits.log_softmax(-1) - alone(input_ids=ids).logits.log_softmax(-1)
        first = len(row.encoded.prompt_ids) - 1
        wanted = [float(gain[0, first + place, id]) for place, id in enumerate(row.encoded.answer_ids)]
        assert rewards == pytest.approx(wanted, abs=1e-3)
    assert any(abs(reward) > 1e-3 for rewards in found for reward in rewards)


def test_a_fits_rewards_are_as_exact_whatever_its_dtype(
    make_model: MakeModel, prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    positives = build_pair_set(make_model(), prompts, PAIRS)
    fit_on(make_model(), positives, PLAN, tmp_path, {}, report_to="none")
    rows = pair_rows(positives)
    coarse = replace(PLAN, dtype="bfloat16")
    found = implicit_rewards(make_model(), tmp_path / ADAPTER, rows, coarse)
    assert found == implicit_rewards(make_model(), tmp_path / ADAPTER, rows, PLAN)


def test_rewards_are_given_back_to_the_answers_they_are_of(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    positives = build_pair_set(model, prompts, PAIRS)
    made = with_rewards(positives, [(float(number),) for number in range(2 * len(PAIRS))])
    assert [(item.row.rewards, item.negatives[0].rewards) for item in made] == [
        ((0.0,), (1.0,)),
        ((2.0,), (3.0,)),
        ((4.0,), (5.0,)),
    ]


def test_the_cost_loss_is_that_of_a_loop() -> None:
    less, safer = torch.tensor([0.5, -1.0]), torch.tensor([-0.25, 2.0])
    less_sign, safer_sign = torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 1.0])

    def minus_log_sigmoid(value: float) -> float:
        return math.log(1 + math.exp(-value))

    wanted = [
        minus_log_sigmoid(high - low) + minus_log_sigmoid(s_low * low) + minus_log_sigmoid(s_high * high)
        for high, low, s_high, s_low in zip(
            *(each.tolist() for each in (less, safer, less_sign, safer_sign)), strict=True
        )
    ]
    assert float(cost_loss(less, safer, less_sign, safer_sign)) == pytest.approx(sum(wanted) / 2, rel=1e-6)


def test_a_cost_heads_first_step_is_that_over_every_tokens_cost(model: LoadedModel) -> None:
    """AdamW's first step is the learning rate against the sign of each gradient."""
    rows = [TrainingRow(Encoded((5, 6), ids)) for ids in ((31, 32, 33), (11,), (34,), (12, 13))]
    pairs = [CostPair(rows[0], rows[1]), CostPair(rows[2], rows[3], less_is_safe=True)]
    plan = CostPlan(passes=1, learning_rate=1e-3, weight_decay=0)
    found = fit_cost_head(model, pairs, plan)
    weight, bias = torch.zeros(32, requires_grad=True), torch.zeros((), requires_grad=True)
    costs = []
    for row in rows:
        ids = torch.tensor([[*row.encoded.prompt_ids, *row.encoded.answer_ids]])
        hidden = model.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, 2:].detach()
        costs.append(torch.stack([state @ weight + bias for state in hidden]).mean())
    signs = torch.tensor([1.0, -1.0]), torch.tensor([-1.0, -1.0])
    less, safer = torch.stack(costs[::2]), torch.stack(costs[1::2])
    cost_loss(less, safer, *signs).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert bias.grad is not None
    assert torch.allclose(found.weight, -1e-3 * weight.grad.sign(), atol=1e-6)
    assert float(found.bias) == pytest.approx(-1e-3 * float(bias.grad.sign()), abs=1e-6)


def test_a_cost_head_puts_zero_between_safe_and_unsafe_tokens(model: LoadedModel) -> None:
    """Safe answers are made of some ids, unsafe ones of others; the head has to tell them apart token by token."""
    chance = torch.Generator().manual_seed(0)

    def row(low: int, high: int) -> TrainingRow:
        return TrainingRow(Encoded((5, 6), tuple(torch.randint(low, high, (6,), generator=chance).tolist())))

    pairs = [CostPair(less=row(30, 40), safer=row(10, 20)) for _ in range(48)]
    head = fit_cost_head(model, pairs, CostPlan(passes=60, learning_rate=3e-2, batch_pairs=8))
    unseen = cost_rewards(model, head, [row(10, 20), row(30, 40)])
    safe, unsafe = ([reward > 0 for reward in rewards] for rewards in unseen)
    assert sum(safe) >= 5
    assert sum(unsafe) <= 1


def test_a_cost_head_is_the_same_when_it_is_loaded_again(tmp_path: Path) -> None:
    CostHead(torch.tensor([0.5, -2.0]), torch.tensor(0.25)).save(tmp_path, {"base": "none"})
    assert CostHead.load(tmp_path).costs(torch.tensor([[1.0, 1.0]])).tolist() == [-1.25]


def test_a_cost_head_needs_pairs(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="pairs are empty"):
        fit_cost_head(model, [], CostPlan())
