"""Whether vLLM can serve an adapter, asked before a run spends its hours and again when it ends."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

ALLOWED_INIT = (True, False, "gaussian", "eva", "orthogonal")
# Refused by vLLM, or unknown to it and so left out in silence.
VARIANTS = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
NO_LORA_IN_VLLM = frozenset(
    {
        "BloomForCausalLM",
        "Cohere2MoeForCausalLM",
        "DbrxForCausalLM",
        "DeepseekV4ForCausalLM",
        "FalconForCausalLM",
        "FalconMambaForCausalLM",
        "GPT2LMHeadModel",
        "GPTJForCausalLM",
        "Gemma3nForCausalLM",
        "Gemma3nForConditionalGeneration",
        "HrmTextForCausalLM",
        "KimiLinearForCausalLM",
        "Mamba2ForCausalLM",
        "MambaForCausalLM",
        "MiMoV2FlashForCausalLM",
        "StableLmForCausalLM",
        "Zamba2ForCausalLM",
    }
)
"""Causal language models of transformers that vLLM 0.32 serves, and serves without adapters."""

EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_ON_A_CPU = (
    "the base model has experts, and no GPU is here: vLLM 0.32 serves an adapter on such a model on a GPU alone, since "
    "its experts under LoRA are written in Triton"
)

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


class NotServable(ValueError):
    """vLLM would refuse the adapter, or serve something else than was trained; the message says which setting."""


def check_architecture(name: str) -> None:
    """Checks the class of the base model.

    Raises:
        NotServable: vLLM serves no adapter on it.
    """
    if name in NO_LORA_IN_VLLM:
        raise NotServable(
            f"the base model is a {name}; vLLM serves no adapter on one. Its list of supported models says which can"
        )


def has_experts(config: Any) -> bool:
    """Whether the model of this configuration routes tokens to experts, as most families in transformers say it."""
    text = config.get_text_config()
    return any(getattr(text, name, None) for name in EXPERT_COUNTS)


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks a PEFT configuration.

    Raises:
        NotServable: DoRA or another variant of LoRA, a bias, trained or resized embeddings, added tokens, or an
            initialisation that changes the base weights.
    """
    wanted: dict[str, tuple[Any, ...]] = {
        "peft_type": ("LORA",),
        "use_dora": (False, None),
        "bias": ("none",),
        "lora_bias": (False, None),
        "modules_to_save": (None, []),
        "trainable_token_indices": (None, [], {}),
        "target_parameters": (None, []),
        "init_lora_weights": ALLOWED_INIT,
        **dict.fromkeys(VARIANTS, (None, False, [], {})),
    }
    for field, allowed in wanted.items():
        if field in config and config[field] not in allowed:
            raise NotServable(f"{field} is {config[field]!r}; vLLM serves only adapters with {field} = {allowed[0]!r}")


def check_folder(folder: Path) -> None:
    """Checks a saved adapter: its configuration, and that its weights are low-rank pairs and nothing else.

    Raises:
        NotServable: the configuration is not servable, the weights are not safetensors, or hold another tensor.
    """
    check_settings(json.loads((folder / CONFIG).read_text()))
    weights = folder / WEIGHTS
    if not weights.exists():
        raise NotServable(f"{folder} has no {WEIGHTS}; adapters are saved as safetensors")
    with safe_open(weights, framework="pt") as file:
        strange = [name for name in file.keys() if not name.endswith((".lora_A.weight", ".lora_B.weight"))]  # noqa: SIM118
    if strange:
        raise NotServable(f"{weights} holds {strange[0]!r}; a servable adapter holds lora_A and lora_B weights alone")
