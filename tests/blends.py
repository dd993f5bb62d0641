"""A blend of two random adapters of the tiny model, one for each dial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from peft import LoraConfig, get_peft_model

from rheostat_server.contract import digest
from rheostat_server.contract.blend import BlendManifest, write_blend
from tests.tiny import BASE_NAME, LINEAR_LAYERS

BLEND_NAME: Final = "tiny-blend"
SAFETY: Final = {"dial": "safety", "points": [[0, 0.1], [1, 1]]}
HELPFULNESS: Final = {"dial": "helpfulness", "points": [[0, 0], [0.5, 0.25], [1, 1.25]]}


@dataclass(frozen=True, slots=True)
class TinyBlend:
    """A blend's folder and its manifest."""

    folder: Path
    manifest: BlendManifest


def build_component(
    folder: Path, *, base: Path, seed: int, rank: int = 4, targets: Sequence[str] = LINEAR_LAYERS, **settings: Any
) -> Path:
    """Writes a LoRA, strong enough to change any answer, that was trained with no control text."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, target_modules=list(targets), task_type="CAUSAL_LM", **{"lora_alpha": 8, **settings})
    model = get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.08)
            if "o_proj" in name or "down_proj" in name:
                parameter.data[0] = 0.0
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def build_blend(folder: Path, *, base: Path) -> TinyBlend:
    """Two experts of different ranks, scalings and layers; at no grid point are both weights 0."""
    build_component(folder / "experts/safe", base=base, seed=21)
    build_component(
        folder / "experts/helpful", base=base, seed=22, rank=3, targets=["v_proj", "down_proj"], use_rslora=True
    )
    return write_tiny_blend(folder, base=base, weights={"safe": SAFETY, "helpful": HELPFULNESS})


def write_tiny_blend(folder: Path, *, base: Path, weights: Mapping[str, Any], **fields: Any) -> TinyBlend:
    """The manifest of the components in `folder`/experts."""
    components = [
        {"name": name, "folder": f"experts/{name}", "weight": weight,
         "weights_digest": digest.adapter_digest(folder / "experts" / name)}
        for name, weight in weights.items()
    ]  # fmt: skip
    given = {
        "name": BLEND_NAME,
        "base_model": {"name": BASE_NAME, "digest": digest.base_model_digest(base)},
        "components": components,
        "training": {"method": "none, random weights", "data_digests": {}},
        "licence": "Apache-2.0",
    }
    manifest = BlendManifest.model_validate({**given, **fields})
    write_blend(manifest, folder)
    return TinyBlend(folder, manifest)
