"""LoRA for a flat sequence in which each token has its own mix of adapters, or none.

PEFT reads the adapters; its layers are then replaced by `GatedLora`, which puts all adapters' matrices side by side:
y = Wx + B(g * Ax), with A = [A1; A2; ...], B = [s1 B1, s2 B2, ...], s = PEFT's scaling, and g a token's gate: over
each adapter's ranks its weight in the mix, which is 1 for an adapter by itself. Three small operations for any mix,
where PEFT's own mixed batch loops over adapters in each layer; and a blend needs no matrices of its own.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import peft
import torch
from peft.tuners import lora as peft_lora
from safetensors.torch import load_file
from torch import Tensor, nn

from rheostat_server.engines.plain_lora import CONFIG, WEIGHTS
from rheostat_server.errors import CannotStart

Ranks = tuple[int, ...]
Mix = tuple[float, ...]
"""The weight of each installed adapter; empty for none of them."""


class AdapterUnusable(CannotStart):
    """The embedded engine cannot serve this adapter; the message says why."""


class Gates:
    """Which mix of adapters each token of the coming forward pass has; the layers ask, the model tells."""

    def __init__(self) -> None:
        self._weights: Tensor | None = None
        self._made: dict[Ranks, Tensor] = {}

    def set(self, weights: Tensor | None) -> None:
        """`weights` is (tokens, adapters); None when no token has any."""
        self._weights = weights
        self._made = {}

    def gate(self, ranks: Ranks, dtype: torch.dtype) -> Tensor | None:
        """(tokens, sum of ranks) of weights, or None when every adapter is off."""
        if self._weights is None:
            return None
        if ranks not in self._made:
            owner = torch.repeat_interleave(torch.tensor(ranks)).to(self._weights.device)
            self._made[ranks] = self._weights[:, owner].to(dtype)
        return self._made[ranks]


class GatedLora(nn.Module):
    """A linear layer and all adapters' changes to it; an adapter that leaves it alone has rank 0."""

    def __init__(self, base: nn.Linear, downs: Sequence[Tensor], ups: Sequence[Tensor], gates: Gates) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.cat(list(downs)).to(base.weight), requires_grad=False)
        self.up = nn.Parameter(torch.cat(list(ups), dim=1).to(base.weight).contiguous(), requires_grad=False)
        self._ranks: Ranks = tuple(len(down) for down in downs)
        self._gates = gates

    def forward(self, x: Tensor) -> Tensor:
        base: Tensor = self.base(x)
        gate = self._gates.gate(self._ranks, x.dtype)
        if gate is None:
            return base
        return base + nn.functional.linear(nn.functional.linear(x, self.down).mul_(gate), self.up)


def install(model: nn.Module, folders: Sequence[Path]) -> Gates:
    """Loads adapters into `model`, in order, and returns their gates.

    Raises:
        AdapterUnusable: an adapter is no plain LoRA of linear layers, or does not fit the model.
    """
    gates = Gates()
    names = [f"adapter{number}" for number in range(len(folders))]
    for name, folder in zip(names, folders, strict=True):
        _inject(model, name, folder)
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, peft_lora.LoraLayer)]
    for path, layer in layers:
        model.set_submodule(path, _gated(path, layer, names, gates))
    return gates


def _inject(model: nn.Module, name: str, folder: Path) -> None:
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise AdapterUnusable(f"{folder / file} is missing; an adapter's folder holds {CONFIG} and {WEIGHTS}")
    config = _config(folder)
    try:
        with warnings.catch_warnings():
            # PEFT warns that the model is already adapted, which is what several adapters mean.
            warnings.filterwarnings("ignore", category=UserWarning, module="peft")
            peft.inject_adapter_in_model(config, model, name, low_cpu_mem_usage=True)
            loaded = peft.set_peft_model_state_dict(model, load_file(folder / WEIGHTS), name, low_cpu_mem_usage=True)
    except (ValueError, RuntimeError, KeyError) as exc:
        raise AdapterUnusable(f"{folder} does not fit the base model: {exc}") from exc
    missing = [key for key in loaded.missing_keys if f".{name}." in key]
    if missing or loaded.unexpected_keys:
        raise AdapterUnusable(
            f"{folder / WEIGHTS} does not fit {CONFIG}: missing {missing[:3]}, unexpected {loaded.unexpected_keys[:3]}"
        )


def _config(folder: Path) -> peft.LoraConfig:
    kind = json.loads((folder / CONFIG).read_bytes()).get("peft_type")
    if kind != "LORA":
        raise AdapterUnusable(f"{folder} is an adapter of the type {kind}; the embedded engine serves LORA")
    try:
        with warnings.catch_warnings():
            # PEFT warns of settings that it does not know, and ignores them.
            warnings.simplefilter("error")
            config = peft.LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, UserWarning) as exc:
        raise AdapterUnusable(f"{folder / CONFIG} is not a LoRA configuration that PEFT can read: {exc}") from exc
    assert isinstance(config, peft.LoraConfig), "PEFT makes a LoraConfig of the type LORA"
    wrong = {
        "bias": config.bias != "none",
        "modules_to_save": bool(config.modules_to_save),
        "target_parameters": bool(config.target_parameters),
        "trainable_token_indices": config.trainable_token_indices is not None,
        "layer_replication": bool(config.layer_replication),
        "lora_bias": config.lora_bias,
        "init_lora_weights": isinstance(config.init_lora_weights, str) and config.init_lora_weights != "gaussian",
    }
    if found := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise AdapterUnusable(f"{folder} sets {', '.join(found)} in {CONFIG}; the embedded engine serves plain LoRA")
    return config


def _gated(path: str, layer: peft_lora.LoraLayer, names: Sequence[str], gates: Gates) -> GatedLora:
    base = layer.get_base_layer()
    if not isinstance(base, nn.Linear) or layer.lora_variant:
        raise AdapterUnusable(
            f"an adapter changes {path}, a {type(base).__name__}, in a way other than plain LoRA of a linear layer"
        )
    empty_down, empty_up = base.weight.new_empty(0, base.in_features), base.weight.new_empty(base.out_features, 0)
    downs = [layer.lora_A[name].get_parameter("weight") if name in layer.lora_A else empty_down for name in names]
    ups = [
        layer.lora_B[name].get_parameter("weight") * layer.scaling[name] if name in layer.lora_B else empty_up
        for name in names
    ]
    return GatedLora(base, downs, ups, gates)
