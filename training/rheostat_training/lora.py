"""The LoRA adapter: which layers it is on, how it is put on a model, and how it is saved."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import Linear

from rheostat_training.adapter_check import CONFIG, NotServable, check_architecture, check_folder, check_settings
from rheostat_training.fit_plan import FitPlan
from rheostat_training.publish import with_ordinary_permissions

ADAPTER: Final = "adapter"
"""The folder of the adapter that a stage makes, in the stage's own."""
ROUTERS: Final = frozenset({"classifier", "gate", "router", "shared_expert_gate", "wg"})
"""Layers that choose experts ("classifier" is LongCat's, "wg" HunYuan's). A dial has no business there, and vLLM puts
no adapter on most of them."""


def linear_layers(model: Any) -> list[str]:
    """The last names of every linear layer but the output's and the routers', which vLLM matches adapters by.

    Experts that a model keeps as one tensor are not linear layers: of such a model the adapter is on the attention.

    Raises:
        NotServable: there is none, as in GPT-2, whose layers are convolutions.
    """
    output = model.get_output_embeddings()
    layers = [name for name, module in model.named_modules() if isinstance(module, Linear) and module is not output]
    names = sorted({name.rsplit(".", 1)[-1] for name in layers} - ROUTERS)
    if not names:
        raise NotServable(
            f"a model of type {model.config.model_type!r} has no linear layers; vLLM serves adapters on those alone"
        )
    return names


def chosen_layers(model: Any, names: Sequence[str] | None) -> list[str]:
    """The linear layers of these last names; all of them where None is given.

    Raises:
        NotServable: see `linear_layers`.
        ValueError: the model has no linear layer of a name.
    """
    known = linear_layers(model)
    if names is None:
        return known
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(
            f"target_modules names {unknown[0]!r}; the linear layers of a model of type {model.config.model_type!r} "
            f"are {', '.join(known)}"
        )
    return sorted(set(names))


def with_lora(model: Any, plan: FitPlan, base_name: str) -> Any:
    """The model with a fresh adapter, the same for the same seed.

    Raises:
        NotServable: see `adapter_check`.
        ValueError: see `chosen_layers`.
    """
    check_architecture(type(model).__name__)
    torch.manual_seed(plan.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=plan.rank,
        lora_alpha=plan.lora_alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=plan.dropout,
        target_modules=chosen_layers(model, plan.target_modules),
    )
    check_settings(config.to_dict())
    wrapped = get_peft_model(model, config)
    wrapped.peft_config["default"].base_model_name_or_path = base_name
    return wrapped


def save_adapter(model: Any, folder: Path, *, weights: Mapping[str, Tensor] | None = None) -> Path:
    """PEFT's two files, the same bytes for the same weights, and nothing that names this machine; checked for vLLM.

    `weights` stand in for the model's own, which may be spread over processes.

    Raises:
        NotServable: see `adapter_check`.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, state_dict=dict(weights) if weights else None, save_embedding_layers=False)
    (partial / "README.md").unlink(missing_ok=True)
    _sort_target_modules(partial / CONFIG)
    check_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    return with_ordinary_permissions(partial).replace(folder)


def _sort_target_modules(path: Path) -> None:
    """PEFT writes a set, in an order that changes from process to process, and with it the adapter's digest.

    A pattern that names the layers is one string, and stays.
    """
    config = json.loads(path.read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
