"""Causal language models and their tokenizers, loaded from folders."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in eval mode and the tokenizer it was trained with."""

    model: Any
    tokenizer: Any

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def eos_token_id(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no eos token; an answer needs a token that ends it")
        return int(self.tokenizer.eos_token_id)

    def digest(self) -> str:
        """A digest of the weights in memory, so that a resumed run is known to be of the same model."""
        total = hashlib.sha256()
        for name, values in sorted(self.model.state_dict().items()):
            total.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            total.update(values.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
        return f"sha256:{total.hexdigest()}"


def load_base(folder: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> LoadedModel:
    """A base model as transformers loads it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()  # pyright: ignore[reportArgumentType]
    return LoadedModel(model, AutoTokenizer.from_pretrained(folder))


def load_with_adapter(
    base: Path, adapter: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> LoadedModel:
    """A base model with a LoRA adapter merged into its weights, which is as fast as the base alone."""
    loaded = load_base(base, dtype=dtype, device=device)
    merged = PeftModel.from_pretrained(loaded.model, adapter).merge_and_unload()
    return LoadedModel(merged.eval(), loaded.tokenizer)
