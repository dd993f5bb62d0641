"""Plain LoRA as PEFT writes it, read without loading it: each layer's rank and scaling; anything else is refused."""

import json
import math
import re
import sys
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
    """By layer, as the base model names it: the rank, the scaling s by which PEFT multiplies B·A, and the sizes.

    These are the layer's (in, out): the columns of A, and the rows of B.
    """

    ranks: Mapping[str, int]
    scalings: Mapping[str, float]
    sizes: Mapping[str, tuple[int, int]]


def greatest_rank(loras: Sequence[PlainLora]) -> int:
    """The most that the ranks of one layer add up to."""
    layers = {layer for one in loras for layer in one.ranks}
    return max(sum(one.ranks.get(layer, 0) for one in loras) for layer in layers)


def read_plain_lora(folder: Path) -> PlainLora:
    """What an adapter's folder holds.

    Raises:
        NotPlainLora: it is no plain LoRA, or its weights do not fit its configuration.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise NotPlainLora(f"{path} is not valid JSON: {exc}") from exc
    if not isinstance(config, dict):
        raise NotPlainLora(f"{path} holds {str(config)[:80]!r}; it should be an object of settings")
    _check_settings(folder, config)
    shapes = _shapes(folder / WEIGHTS)
    ranks = _ranks(folder / WEIGHTS, shapes)
    for layer, rank in ranks.items():
        if rank != (said := _of_layer(path, config, "rank_pattern", "r", layer)):
            raise NotPlainLora(f"{folder}: {layer} has the rank {rank}, and {CONFIG} says {said:g}")
    return PlainLora(
        ranks,
        {layer: _scaling(path, config, layer, rank) for layer, rank in ranks.items()},
        {layer: (shapes[f"{PREFIX}{layer}{DOWN}"][1], shapes[f"{PREFIX}{layer}{UP}"][0]) for layer in ranks},
    )


def _check_settings(folder: Path, config: Mapping[str, Any]) -> None:
    for field, allowed in _PLAIN.items():
        if field in config and config[field] not in allowed:
            raise NotPlainLora(f"{folder / CONFIG}: {field} is {config[field]!r}; plain LoRA has {allowed[0]!r}")


def _ranks(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Each layer's rank by the shapes of its two matrices: A is (rank, in), B is (out, rank)."""
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
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise NotPlainLora(f"{path} is not a safetensors file") from exc
    for name, (kind, shape) in tensors.items():
        if not (name.startswith(PREFIX) and name.endswith((DOWN, UP)) and kind in KINDS and _is_matrix(shape)):
            raise NotPlainLora(f"{path} holds {name!r}, {kind} of {list(shape)}; plain LoRA holds A and B of layers")
    return {name: shape for name, (_, shape) in tensors.items()}


def _is_matrix(shape: Sequence[object]) -> bool:
    return len(shape) == 2 and all(type(size) is int and size > 0 for size in shape)


def _scaling(path: Path, config: Mapping[str, Any], layer: str, rank: int) -> float:
    """s = alpha / r, and with rsLoRA alpha / √r."""
    alpha = _of_layer(path, config, "alpha_pattern", "lora_alpha", layer)
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _of_layer(path: Path, config: Mapping[str, Any], pattern: str, default: str, layer: str) -> float:
    """PEFT's rule: the first pattern that is the layer's name, or its end from a dot on."""
    patterns = config.get(pattern) or {}
    if not isinstance(patterns, dict):
        raise NotPlainLora(f"{path}: {pattern} is {patterns!r}; it should be an object of numbers by layer")
    for key, value in patterns.items():
        try:
            fits = re.match(rf"(.*\.)?({key})$", layer)
        except re.error as exc:
            raise NotPlainLora(f"{path}: {pattern} has {key!r}, which is no regular expression: {exc}") from exc
        if fits:
            return _number(path, f"{pattern}.{key}", value)
    return _number(path, default, config.get(default))


def _number(path: Path, field: str, value: object) -> float:
    """As JSON has it: no text, no NaN, and nothing beyond what a float holds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise NotPlainLora(f"{path}: {field} is {value!r}; it should be a number")
