"""MidPO's router against slow second implementations: layer, gates, loss, and what it refuses."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rheostat_training.equilibrate.methods.midpo import (
    EXPERT,
    Expert,
    Experts,
    Routed,
    RouterPlan,
    expert_plan,
    gate_terms,
    put_router,
    read_mask,
    router_loss,
    take_router,
)
from rheostat_training.lora import save_adapter, with_lora
from rheostat_training.losses import RowLogs
from rheostat_training.models import LoadedModel
from tests.training.equilibrate.routed import FIT, random_expert

MakeModel = Callable[[], LoadedModel]


def routed(seed: int = 0) -> Routed:
    chance = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    layer = nn.Linear(6, 4, bias=False)
    made = Routed(layer, Expert(drawn(2, 6), drawn(4, 2), 2.0), Expert(drawn(3, 6), drawn(4, 3), 0.5))
    with torch.no_grad():
        layer.weight.copy_(drawn(4, 6))
        made.gates.weight.copy_(drawn(2, 6))
        made.gates.bias.copy_(drawn(2))
    return made


@torch.no_grad()
def test_the_layer_is_that_of_a_loop_over_rows_and_tokens() -> None:
    layer = routed()
    hidden = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(9))
    found = layer(hidden)
    for row in range(2):
        for token in range(3):
            h = hidden[row, token]
            gates = [1 / (1 + math.exp(-float(layer.gates.weight[k] @ h + layer.gates.bias[k]))) for k in range(2)]
            wanted = layer.layer.weight @ h
            for gate, expert in zip(gates, (layer.safety, layer.helpfulness), strict=True):
                wanted = wanted + gate * expert.scale * (expert.b @ (expert.a @ h))
            torch.testing.assert_close(found[row, token], wanted)
            assert layer.recorded is not None
            torch.testing.assert_close(layer.recorded[row, token], torch.tensor(gates))
            assert all(0 < gate < 1 for gate in gates)


@torch.no_grad()
def test_gates_begin_at_a_half_and_experts_can_be_left_out() -> None:
    layer = nn.Linear(6, 4, bias=False)
    one = Expert(torch.randn(2, 6), torch.randn(4, 2), 1.0)
    made = Routed(layer, one, one)
    hidden = torch.randn(5, 6)
    torch.testing.assert_close(made(hidden), layer(hidden) + one(hidden))
    made.on = False
    torch.testing.assert_close(made(hidden), layer(hidden))


def test_the_gate_terms_are_those_of_a_loop_over_the_tokens_that_are_read() -> None:
    gates = torch.rand(2, 3, 5, 2, generator=torch.Generator().manual_seed(1))
    lengths = [3, 6, 4]
    a, g = gate_terms(gates, read_mask(lengths, 5))
    safety, helpfulness = [], []
    for layer in range(2):
        for row, length in enumerate(lengths):
            for token in range(length - 1):
                safety.append(abs(float(gates[layer, row, token, 0])))
                helpfulness.append(abs(float(gates[layer, row, token, 1]) - 1))
    assert float(a) == pytest.approx(sum(safety) / len(safety))
    assert float(g) == pytest.approx(sum(helpfulness) / len(helpfulness))


def test_the_loss_is_dpo_and_both_gate_terms() -> None:
    def logs(values: list[float], reference: list[float]) -> RowLogs:
        tokens = torch.tensor(values)[:, None]
        return RowLogs(tokens, torch.ones_like(tokens, dtype=torch.bool), len(values), torch.tensor(reference))

    positive, negative = logs([-1.0, -3.0], [-2.0, -2.5]), logs([-4.0, -1.0], [-3.0, -2.0])
    terms = torch.tensor(0.3), torch.tensor(0.6)
    margins = [(-1 + 2) - (-4 + 3), (-3 + 2.5) - (-1 + 2)]
    wanted = sum(math.log(1 + math.exp(-0.2 * margin)) for margin in margins) / 2
    plan = RouterPlan(beta=0.2, gate_weight=1.0)
    assert float(router_loss(positive, negative, plan, terms)) == pytest.approx(wanted + 0.9)
    half = replace(plan, gate_weight=0.5)
    assert float(router_loss(positive, negative, half, terms)) == pytest.approx(wanted + 0.45)


def test_the_defaults_are_the_papers() -> None:
    assert (EXPERT.loss, EXPERT.beta, EXPERT.rank, EXPERT.lora_alpha) == ("dpo", 0.1, 16, 32)
    assert EXPERT.target_modules == ("down_proj",)
    assert RouterPlan().beta == 0.1
    assert expert_plan(1000).steps == RouterPlan.over(1000).steps == 750
    assert expert_plan(1000).warmup_steps == 22
    assert expert_plan(1).steps == 1


def test_put_on_a_model_and_taken_off_again_it_leaves_the_model_as_it_was(
    make_model: MakeModel, tmp_path: Path
) -> None:
    base = make_model()
    before = base.digest()
    router = put_router(base.model, random_experts(make_model, tmp_path))
    assert list(router.layers) == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    assert base.digest() != before
    learning = {name for name, weight in base.model.named_parameters() if weight.requires_grad}
    assert learning == set(router.weights())
    ids = torch.arange(8)[None]
    with torch.no_grad(), router.off():
        torch.testing.assert_close(base.model(input_ids=ids).logits, make_model().model(input_ids=ids).logits)
    take_router(base.model, router)
    assert base.digest() == before


def random_experts(make_model: MakeModel, folder: Path) -> Experts:
    return Experts(*(random_expert(make_model(), folder / name, seed) for seed, name in enumerate(("s", "h"), 1)))


def test_with_both_gates_open_it_is_the_sum_of_both_adapters(make_model: MakeModel, tmp_path: Path) -> None:
    experts = random_experts(make_model, tmp_path)
    base = make_model()
    router = put_router(base.model, experts)
    with torch.no_grad():
        for layer in router.layers.values():
            layer.gates.bias.fill_(50.0)
    from peft import PeftModel

    blended = make_model().model
    for folder in (experts.safety, experts.helpfulness):
        blended = PeftModel.from_pretrained(blended, folder).merge_and_unload()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(base.model(input_ids=ids).logits, blended(input_ids=ids).logits)
        assert not torch.allclose(blended(input_ids=ids).logits, make_model().model(input_ids=ids).logits, atol=1e-3)


def test_an_expert_on_other_layers_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    experts = random_experts(make_model, tmp_path)
    wrapped = with_lora(make_model().model, replace(FIT, target_modules=None), "base")
    other = save_adapter(wrapped, tmp_path / "everywhere")
    with pytest.raises(ValueError, match="helpfulness expert is on 14 layers and the model has 2 named 'down_proj'"):
        put_router(make_model().model, Experts(experts.safety, other))


def test_a_router_that_was_not_called_has_no_gates(make_model: MakeModel, tmp_path: Path) -> None:
    router = put_router(make_model().model, random_experts(make_model, tmp_path))
    with pytest.raises(ValueError, match="must be called first"):
        router.recorded()


@pytest.mark.parametrize(
    "wrong",
    [{"beta": 0.0}, {"gate_weight": -1.0}, {"steps": 0}, {"learning_rate": 0.0}, {"seed": -1}, {"dtype": "float16"}],
)
def test_a_plan_that_cannot_be_is_refused_by_the_fields_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RouterPlan(**wrong)
