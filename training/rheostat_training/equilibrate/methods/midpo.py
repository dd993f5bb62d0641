"""MidPO's router: two frozen experts beside each down projection, and how much of each a token gets.

Source: arXiv 2506.02460, y = W_down·h + a(h)·B_s A_s h + g(h)·B_h A_h h with sigmoid gates a and g, and
L_router = DPO + mean|a| + mean|g − 1|. The gates are linear in h: those of the released code are three linear layers
without anything between them. Both begin at ½, over all tokens that are read count alike, and experts count α/r times,
as they were trained (reconstruction; the released code leaves α/r out). `midpo_fit` trains the router.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rheostat_training.adapter_check import CONFIG, WEIGHTS, check_folder, has_experts
from rheostat_training.fit_plan import Dtype, FitPlan
from rheostat_training.limits import STRICT, a_seed, above_zero, at_least, one_of, refuse
from rheostat_training.losses import RowLogs, dpo

TARGET: Final = "down_proj"
PREFIX: Final = "base_model.model."
PASSES: Final = 3
WARMUP: Final = 0.03
"""The share of the steps over which the learning rate rises."""
EXPERT: Final = FitPlan(
    loss="dpo",
    beta=0.1,
    target_modules=(TARGET,),
    rank=16,
    lora_alpha=32.0,
    learning_rate=1e-5,
    weight_decay=0.01,
    batch_rows=4,
)
"""How the paper and its code train an expert; `expert_plan` adds the steps."""


def expert_plan(pairs: int) -> FitPlan:
    """The plan of an expert on so many pairs of one order, whose aim is "margin": three passes over them."""
    steps = steps_of(pairs, EXPERT.batch_rows)
    return replace(EXPERT, steps=steps, warmup_steps=round(WARMUP * steps))


def steps_of(pairs: int, batch_rows: int) -> int:
    """The steps of three passes."""
    return max(1, math.ceil(PASSES * pairs / batch_rows))


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """How the router is trained. `gate_weight` weighs both gates' terms, 1 in the paper."""

    __pydantic_config__ = STRICT

    beta: float = 0.1
    gate_weight: float = 1.0
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    warmup_steps: int = 20
    steps: int = 600
    batch_rows: int = 4
    clip: float = 1.0
    seed: int = 0
    dtype: Dtype = "auto"
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        refuse(
            at_least(self, 1, "steps", "batch_rows", "checkpoint_every"),
            at_least(self, 0, "gate_weight", "weight_decay", "warmup_steps"),
            above_zero(self, "beta", "learning_rate", "clip"),
            a_seed(self),
            one_of(self, "dtype", get_args(Dtype)),
        )

    @classmethod
    def over(cls, pairs: int) -> "RouterPlan":
        """Three passes over so many pairs."""
        steps = steps_of(pairs, cls().batch_rows)
        return cls(steps=steps, warmup_steps=round(WARMUP * steps))

    @property
    def fit(self) -> FitPlan:
        """The same in a fit's words: its forwards, its batches and its learning rate."""
        return FitPlan(
            loss="dpo",
            beta=self.beta,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            steps=self.steps,
            batch_rows=self.batch_rows,
            seed=self.seed,
            dtype=self.dtype,
        )


@dataclass(frozen=True, slots=True)
class Experts:
    """The adapter folders of the two experts."""

    safety: Path
    helpfulness: Path


class Expert(nn.Module):
    """(α/r)·B A h, frozen."""

    a: Tensor
    b: Tensor

    def __init__(self, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("a", a)
        self.register_buffer("b", b)
        self.scale = scale

    def forward(self, hidden: Tensor) -> Tensor:
        """[…, in] -> […, out]."""
        return self.scale * ((hidden @ self.a.T.to(hidden)) @ self.b.T.to(hidden))


class Routed(nn.Module):
    """A down projection with its two experts and their gates."""

    def __init__(self, layer: nn.Linear, safety: Expert, helpfulness: Expert) -> None:
        super().__init__()
        self.layer, self.safety, self.helpfulness = layer, safety, helpfulness
        device = layer.weight.device
        self.gates = nn.Linear(layer.in_features, 2, device=device, dtype=torch.float32)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)
        self.on = True
        self.recorded: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """[…, in] -> […, out]; the gates of the last call are kept, […, 2], a before g."""
        plain: Tensor = self.layer(hidden)
        if not self.on:
            return plain
        opened = self.gates(hidden.float()).sigmoid()
        self.recorded = opened
        a, g = opened.to(plain).unbind(-1)
        added = a[..., None] * self.safety(hidden) + g[..., None] * self.helpfulness(hidden)
        mixed: Tensor = plain + added.to(plain)
        return mixed


@dataclass(frozen=True, slots=True)
class Router:
    """A model's routed layers, by the names of the down projections they stand for."""

    layers: Mapping[str, Routed]

    def weights(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {
            f"{name}.gates.{kind}": getattr(layer.gates, kind)
            for name, layer in self.layers.items()
            for kind in ("weight", "bias")
        }

    def recorded(self) -> Tensor:
        """The gates of the last forward, [layers, rows, tokens, 2].

        Raises:
            ValueError: there was none.
        """
        found = [layer.recorded for layer in self.layers.values()]
        there = [each for each in found if each is not None]
        if len(there) < len(found):
            raise ValueError("the gates of a layer are not recorded; the model must be called first")
        return torch.stack(there)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The base alone."""
        for layer in self.layers.values():
            layer.on = False
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.on = True


def put_router(model: Any, experts: Experts) -> Router:
    """Puts experts and gates beside every down projection of a model, all else frozen; `take_router` undoes it.

    Raises:
        NotServable: an expert is none that vLLM serves.
        ValueError: the model has experts of its own, or the adapters are not on its down projections alone, both on the
            same.
    """
    if has_experts(model.config):
        raise ValueError("the base model has experts of its own; MidPO's router is for dense models")
    found = {
        name: _expert_layers(folder)
        for name, folder in (("safety", experts.safety), ("helpfulness", experts.helpfulness))
    }
    layers = [name for name, module in model.named_modules() if name.rsplit(".", 1)[-1] == TARGET]
    for name, parts in found.items():
        if sorted(parts) != sorted(layers):
            raise ValueError(
                f"the {name} expert is on {len(parts)} layers and the model has {len(layers)} named {TARGET!r}; an "
                f"expert must be on each of these: train it with target_modules [{TARGET}] on this model"
            )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    made = {}
    for name in layers:
        layer = model.get_submodule(name)
        pair = (found[expert][name].to(layer.weight.device) for expert in ("safety", "helpfulness"))
        made[name] = Routed(layer, *pair)
        model.set_submodule(name, made[name])
    return Router(made)


def take_router(model: Any, router: Router) -> None:
    """Puts the down projections back."""
    for name, layer in router.layers.items():
        model.set_submodule(name, layer.layer)


def gate_terms(gates: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """mean|a| and mean|g − 1| over layers and the tokens that are read.

    Args:
        gates: [layers, rows, tokens, 2], a before g.
        read: [rows, tokens], true where no padding is read.
    """
    there = gates[:, read]
    return there[..., 0].abs().mean(), (there[..., 1] - 1).abs().mean()


def router_loss(positive: RowLogs, negative: RowLogs, plan: RouterPlan, terms: tuple[Tensor, Tensor]) -> Tensor:
    """L = DPO + mean|a| + mean|g − 1|, the last two weighed."""
    return dpo(positive, negative, plan.beta) + plan.gate_weight * (terms[0] + terms[1])


def read_mask(lengths: Sequence[int], width: int) -> Tensor:
    """[rows, width], true at the tokens that are read of rows padded on the right: all but each row's last."""
    return torch.arange(width) < (torch.tensor(lengths) - 1)[:, None]


def _expert_layers(folder: Path) -> dict[str, Expert]:
    """The experts of an adapter by the layers they are on."""
    check_folder(folder)
    config = json.loads((folder / CONFIG).read_text())
    weights = load_file(folder / WEIGHTS)
    if different := [name for name in ("rank_pattern", "alpha_pattern", "use_rslora") if config.get(name)]:
        raise ValueError(f"{folder} has {different[0]}; an expert has one rank and one lora_alpha")
    scale = config["lora_alpha"] / config["r"]
    return {
        name.removeprefix(PREFIX).removesuffix(".lora_A.weight"): Expert(
            a, weights[name.replace("lora_A", "lora_B")], scale
        )
        for name, a in weights.items()
        if name.endswith(".lora_A.weight")
    }
