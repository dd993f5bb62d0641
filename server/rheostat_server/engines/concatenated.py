"""A weighted sum of LoRA adapters as one LoRA: their ranks one after another. For engines that load adapters by files.

Σ_k w_k·s_k·B_k A_k = [w_1·s_1·B_1, w_2·s_2·B_2, …]·[A_1; A_2; …], which is exact. The mean of the A's and of the B's,
each by itself, is another matrix.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rheostat_server.engines import Part
from rheostat_server.engines.plain_lora import (
    CONFIG,
    DOWN,
    PREFIX,
    UP,
    WEIGHTS,
    NotPlainLora,
    PlainLora,
    greatest_rank,
    read_plain_lora,
)

Pair = tuple[Tensor, Tensor]


def write_concatenated(parts: Sequence[Part], folder: Path) -> None:
    """Writes the sum of `parts` as a PEFT adapter, whole or not at all.

    Every layer has the greatest sum of ranks, with zeros where its own is less, and alpha is that rank, so that PEFT
    scales by 1. Weights are in float32: an engine rounds once, to its own type.

    Raises:
        NotPlainLora: a part is no plain LoRA.
        OSError: a folder cannot be read or written, or there is none to write into.
        RuntimeError: parts do not fit each other.
    """
    read = [read_plain_lora(part.folder) for part in parts]
    rank = greatest_rank(read)
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir()
    try:
        tensors = _padded(_concatenated(parts, read), rank)
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / CONFIG).write_text(json.dumps(_config(rank, [name for one in read for name in one.ranks])))
        partial.rename(folder)
    except SafetensorError as exc:
        raise NotPlainLora(f"{folder}: {exc}") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _padded(layers: Mapping[str, Pair], rank: int) -> dict[str, Tensor]:
    """By their names in the file, with zeros up to the rank that all layers have."""
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in layers.items():
        if spare := rank - len(down):
            down, up = torch.nn.functional.pad(down, (0, 0, 0, spare)), torch.nn.functional.pad(up, (0, spare))
        tensors[f"{PREFIX}{layer}{DOWN}"], tensors[f"{PREFIX}{layer}{UP}"] = down, up
    return tensors


def _concatenated(parts: Sequence[Part], read: Sequence[PlainLora]) -> Mapping[str, Pair]:
    """By layer: A of (sum of ranks, in), and B of (out, sum of ranks) with weights and scalings in it."""
    found: dict[str, list[Pair]] = {}
    for part, plain in zip(parts, read, strict=True):
        tensors = load_file(part.folder / WEIGHTS)
        for layer, scaling in plain.scalings.items():
            down, up = tensors[f"{PREFIX}{layer}{DOWN}"].float(), tensors[f"{PREFIX}{layer}{UP}"].float()
            found.setdefault(layer, []).append((down, up * (part.weight * scaling)))
    return {
        layer: (torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1))
        for layer, pairs in found.items()
    }


def _config(rank: int, layers: Sequence[str]) -> dict[str, object]:
    """Layers by their whole names, as parts may change different ones."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(set(layers)),
        "bias": "none",
        "inference_mode": True,
    }
