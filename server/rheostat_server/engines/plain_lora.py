"""Plain LoRA as PEFT writes it, read without loading it: each layer's rank and scaling; anything else is refused."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
METADATA: Final = "__metadata__"
LONGEST_HEADER: Final = 100 * 2**20
"""As safetensors itself has it."""
KINDS: Final = ("F32", "BF16", "F16", "F64")
PREFIX: Final = "base_model.model."
DOWN: Final = ".lora_A.weight"
UP: Final = ".lora_B.weight"

_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
    **dict.fromkeys(("fan_in_fan_out", "lora_bias", "use_bdlora", "use_dora", "use_qalora"), (False, None)),
    **dict.fromkeys(
        ("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "megatron_config",
         "modules_to_save", "monteclora_config", "target_parameters", "trainable_token_indices", "velora_config"),
        (None, False, [], {}),
    ),
}  # fmt: skip
"""Settings that change what an adapter is, with the values that leave it y = Wx + s·B(Ax)."""


class NotPlainLora(ValueError):
    """An adapter is more than low-rank changes of linear layers; the message says which setting or tensor."""


@dataclass(frozen=True, slots=True)
class PlainLora:
    """By layer, as the base model names it: the rank, and the scaling s by which PEFT multiplies B·A."""

    ranks: Mapping[str, int]
    scalings: Mapping[str, float]


def greatest_rank(loras: Sequence[PlainLora]) -> int:
    """The most that the ranks of one layer add up to."""
    layers = {layer for one in loras for layer in one.ranks}
    return max(sum(one.ranks.get(layer, 0) for one in loras) for layer in layers)


def read_plain_lora(folder: Path) -> PlainLora:
    """What an adapter's folder holds.

    Raises:
        NotPlainLora: it is no plain LoRA, or its weights do not fit its configuration.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except ValueError as exc:
        raise NotPlainLora(f"{folder / CONFIG} is not valid JSON: {exc}") from exc
    _check_settings(folder, config)
    ranks = _ranks(folder)
    for layer, rank in ranks.items():
        if rank != (said := _of_layer(config, "rank_pattern", "r", layer)):
            raise NotPlainLora(f"{folder}: {layer} has the rank {rank}, and {CONFIG} says {said}")
    return PlainLora(ranks, {layer: _scaling(config, layer, rank) for layer, rank in ranks.items()})


def _check_settings(folder: Path, config: Mapping[str, Any]) -> None:
    for field, allowed in _PLAIN.items():
        if field in config and config[field] not in allowed:
            raise NotPlainLora(f"{folder / CONFIG}: {field} is {config[field]!r}; plain LoRA has {allowed[0]!r}")


def _ranks(folder: Path) -> dict[str, int]:
    """Each layer's rank by the shapes of its two matrices: A is (rank, in), B is (out, rank)."""
    path = folder / WEIGHTS
    shapes = _shapes(path)
    downs = {name.removesuffix(DOWN): shape[0] for name, shape in shapes.items() if name.endswith(DOWN)}
    ups = {name.removesuffix(UP): shape[1] for name, shape in shapes.items() if name.endswith(UP)}
    if downs != ups or not downs:
        odd = sorted(downs.items() ^ ups.items())
        raise NotPlainLora(f"{path}: A and B of {odd[0][0] if odd else 'no layer'} do not go together")
    return {layer.removeprefix(PREFIX): rank for layer, rank in sorted(downs.items())}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """By tensor, from the file's header: its length in eight bytes, then JSON."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), LONGEST_HEADER)))
        tensors = {name: (each["dtype"], tuple(each["shape"])) for name, each in header.items() if name != METADATA}
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise NotPlainLora(f"{path} is not a safetensors file") from exc
    for name, (kind, shape) in tensors.items():
        if not (name.startswith(PREFIX) and name.endswith((DOWN, UP)) and len(shape) == 2 and kind in KINDS):
            raise NotPlainLora(f"{path} holds {name!r}, {kind} of {list(shape)}; plain LoRA holds A and B of layers")
    return {name: shape for name, (_, shape) in tensors.items()}


def _scaling(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """s = alpha / r, and with rsLoRA alpha / √r."""
    alpha = float(_of_layer(config, "alpha_pattern", "lora_alpha", layer))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _of_layer(config: Mapping[str, Any], pattern: str, default: str, layer: str) -> Any:
    """PEFT's rule: the first pattern that is the layer's name, or its end from a dot on."""
    patterns: Mapping[str, Any] = config.get(pattern) or {}
    fitting = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer))
    return next(fitting, config[default])
