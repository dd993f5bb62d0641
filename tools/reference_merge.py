"""What a blend must be equal to: the base model with the sum of its parts' changes in its weights, by PEFT alone."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from rheostat_server.engines import Part


def merged(base: Path, parts: Sequence[Part]) -> Any:
    """transformers' own model with W + Σ w·ΔW as its weights, in float32, each ΔW as PEFT computes it."""
    model = _loaded(base)
    with torch.no_grad():
        for part in parts:
            for layer, change in changes_of(base, part.folder).items():
                model.get_submodule(layer).weight += part.weight * change
    return model


@cache
def changes_of(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """By layer, s·B·A."""
    model = PeftModel.from_pretrained(_loaded(base), str(adapter))
    layers = ((path, each) for path, each in model.named_modules() if isinstance(each, LoraLayer))
    return {
        path.removeprefix("base_model.model."): layer.get_delta_weight("default").detach() for path, layer in layers
    }


def logits_of(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """(tokens, vocabulary)."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([list(ids)])).logits[0]
    return logits


def _loaded(base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
