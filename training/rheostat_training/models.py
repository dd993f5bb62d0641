"""Causal language models and their tokenizers, loaded from folders."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from rheostat_training.conditioning import closing_ids

Quantization = Literal["nf4"]


@dataclass(frozen=True, slots=True)
class Room:
    """How many tokens a model can read and write together; None where its configuration does not say."""

    tokens: int | None

    @classmethod
    def of(cls, config: Any) -> "Room":
        return cls(getattr(config.get_text_config(), "max_position_embeddings", None))

    def check(self, lengths: Mapping[str, int], new_tokens: int) -> None:
        """Raises ValueError if a prompt, of so many tokens by its id, leaves no room for an answer."""
        if self.tokens is None:
            return
        long = {id: length for id, length in lengths.items() if length + new_tokens > self.tokens}
        if long:
            id, length = next(iter(long.items()))
            raise ValueError(
                f"{len(long)} of {len(lengths)} prompts leave no room for an answer, such as {id!r} of {length} "
                f"tokens: the model reads and writes {self.tokens}, and max_new_tokens is {new_tokens}; leave long "
                "ones out by max_characters, or ask for fewer tokens"
            )


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
    def end_ids(self) -> frozenset[int]:
        """Every token that ends an answer: the tokenizer's, and those that the model's generation settings name.

        Raises:
            ValueError: there is none.
        """
        declared = self.model.generation_config.eos_token_id
        more = declared if isinstance(declared, list) else [declared]
        found = frozenset(int(id) for id in (self.tokenizer.eos_token_id, *more) if id is not None)
        if not found:
            raise ValueError("the tokenizer has no eos token; an answer needs a token that ends it")
        return found

    @property
    def end_id(self) -> int:
        """The one to learn: that which the chat template closes an answer with, such as Gemma's end of a turn."""
        ends = self.end_ids
        closing = next((id for id in closing_ids(self.tokenizer) if id in ends), None)
        own = self.tokenizer.eos_token_id
        return closing if closing is not None else int(own) if own is not None else min(ends)

    @property
    def room(self) -> "Room":
        return Room.of(self.model.config)

    def digest(self) -> str:
        """A digest of the weights in memory, so that a resumed run is known to be of the same model."""
        total = hashlib.sha256()
        for name, values in sorted(self.model.state_dict().items()):
            total.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            total.update(values.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
        return f"sha256:{total.hexdigest()}"


def load_base(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    quantize: Quantization | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """A base model as transformers loads it; with "nf4", its linear layers in 4 bits for QLoRA (arXiv 2305.14314).

    Code of the model's own is run only with `trust_remote_code`.

    Raises:
        ValueError: quantization is asked for and bitsandbytes is not installed.
    """
    trust = {"trust_remote_code": trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    if quantize:
        settings = {"quantization_config": _four_bits(quantize, dtype), "device_map": {"": device}, **trust}
        return LoadedModel(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **settings).eval(), tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **trust)
    return LoadedModel(model.to(device).eval(), tokenizer)  # pyright: ignore[reportArgumentType]


def load_with_adapter(
    base: Path,
    adapter: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """A base model with a LoRA adapter merged into its weights, which is as fast as the base alone."""
    return merged(load_base(base, dtype=dtype, device=device, trust_remote_code=trust_remote_code), adapter)


def merged(loaded: LoadedModel, adapter: Path) -> LoadedModel:
    """A model with a LoRA adapter's change in its weights; those of `loaded` are the same tensors."""
    model: Any = PeftModel.from_pretrained(loaded.model, adapter)
    return LoadedModel(model.merge_and_unload().eval(), loaded.tokenizer)


def stored_dtype(folder: Path, *, trust_remote_code: bool = False) -> torch.dtype:
    """The type that a model's weights are stored in."""
    dtype: Any = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _four_bits(quantize: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"quantize is {quantize!r}, which needs bitsandbytes: pip install '.[qlora]' in the checkout")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
