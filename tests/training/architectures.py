"""Tiny random models of the families that people train, with the layers that an adapter must be on.

`python -m tests.training.architectures FOLDER ...` asks vLLM for the first token's log probabilities after the prompt
in a folder's `ids.json`, of the model in its `base` and under the adapter in `adapter`, into its `found.json`, by id.
Each folder has a process of its own that begins with vLLM imported, which takes longest; on CPUs two run at a time.
"""

import json
import multiprocessing
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rheostat_training.models import LoadedModel

ATTENTION: Final = ("k_proj", "o_proj", "q_proj", "v_proj")
GATED: Final = ("down_proj", "gate_proj", "up_proj")
COMMON: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "bos_token_id": None,
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family by transformers' name for it, what its configuration has beyond the common, and its adapter's layers."""

    model_type: str
    targets: tuple[str, ...] = (*ATTENTION, *GATED)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_experts(self) -> bool:
        return bool(self.more)

    def build(self, tokenizer_folder: Path, out: Path) -> LoadedModel:
        """The same random model each time, and its files in `out`."""
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        config = AutoConfig.for_model(self.model_type, vocab_size=len(tokenizer), **COMMON, **ends, **self.more)
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        return LoadedModel(model.eval(), tokenizer)


EXPERTS: Final = {"num_local_experts": 4, "num_experts_per_tok": 2}
ARCHITECTURES: Final = (
    Architecture("llama"),
    Architecture("qwen3"),
    Architecture("mistral"),
    Architecture("gemma"),
    Architecture("gemma3_text"),
    Architecture("phi", ("dense", "fc1", "fc2", "k_proj", "q_proj", "v_proj")),
    Architecture("phi3", ("down_proj", "gate_up_proj", "o_proj", "qkv_proj")),
    Architecture("gpt_oss", ATTENTION, EXPERTS),
    Architecture("mixtral", ATTENTION, EXPERTS),
    Architecture("qwen3_moe", ATTENTION, {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}),
)


def first_token_in_vllm(model: Path, adapter: Path, ids: list[int]) -> list[dict[int, float]]:
    """Log probabilities of the likeliest first tokens by id: of the base, and under the adapter."""
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    engine = LLM(
        str(model),
        enable_lora=True,
        max_loras=2,
        max_lora_rank=16,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        max_logprobs=32,
    )
    asked = SamplingParams(temperature=0, max_tokens=1, logprobs=32)
    found = []
    for request in (None, LoRARequest("adapter", 1, str(adapter))):
        [answer] = engine.generate(TokensPrompt(prompt_token_ids=ids), asked, lora_request=request, use_tqdm=False)
        logprobs = answer.outputs[0].logprobs
        assert logprobs is not None
        found.append({token: value.logprob for token, value in logprobs[0].items()})
    return found


def find(folder: Path) -> None:
    found = first_token_in_vllm(folder / "base", folder / "adapter", json.loads((folder / "ids.json").read_text()))
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    import vllm  # noqa: F401, for all of the processes

    with multiprocessing.get_context("fork").Pool(1 if torch.cuda.is_available() else 2, maxtasksperchild=1) as pool:
        pool.map(find, map(Path, sys.argv[1:]), chunksize=1)
