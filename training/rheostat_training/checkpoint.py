"""Where a training stands, in one safetensors file that is written whole or not at all."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

FILE: Final = "checkpoint.safetensors"
STATE: Final = "state"

Weights = Mapping[str, Tensor]
"""The weights that are trained, by their names in the model."""

Learner = tuple[Weights, torch.optim.Optimizer]
"""Weights, and the optimiser that trains them in the same order."""


@dataclass(slots=True)
class FitState:
    """How far a training has come. Batches and dropout follow from the step's number, so no generator is kept."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan


def trained_weights(model: Any) -> dict[str, Tensor]:
    """The weights that learn, in the model's own order."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def save(folder: Path, state: FitState, tensors: Weights) -> Path:
    """Writes state and tensors; a process that is killed meanwhile leaves the file of before."""
    partial = folder / f"{FILE}.partial"
    save_file(dict(tensors), partial, metadata={STATE: json.dumps(asdict(state))})
    return partial.replace(folder / FILE)


def load(folder: Path, *learners: Learner) -> FitState:
    """Puts back what `save` wrote, whatever the number of processes was and is; a new state where there is no file."""
    path = folder / FILE
    if not path.exists():
        return FitState()
    with safe_open(path, framework="pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = FitState(**json.loads(file.metadata()[STATE]))
    for weights, optimiser in learners:
        _put_back(saved, weights, optimiser)
    return state


def snapshot(*learners: Learner) -> dict[str, Tensor]:
    """Weights and the optimisers' state under one set of names, each whole; every process must call it."""
    named = (pair for weights, optimiser in learners for pair in _named(weights, optimiser))
    return {name: whole(value).detach().cpu().contiguous() for name, value in named}


def _put_back(saved: Weights, weights: Weights, optimiser: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(_like(saved[f"weights.{name}"], weight))
    slots = _slots(saved)
    entries = {
        number: {slot: _like(saved[key], weight) for slot in slots if (key := f"optimiser.{slot}.{name}") in saved}
        for number, (name, weight) in enumerate(weights.items())
    }
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})


def _named(weights: Weights, optimiser: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    entries = optimiser.state_dict()["state"]
    for number, (name, weight) in enumerate(weights.items()):
        yield f"weights.{name}", weight
        for slot, value in entries[number].items():
            yield f"optimiser.{slot}.{name}", value


def _slots(saved: Weights) -> list[str]:
    return sorted({name.split(".")[1] for name in saved if name.startswith("optimiser.")})


def whole(value: Tensor) -> Tensor:
    """A tensor that may be spread over processes, together; every process must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: Tensor, weight: Tensor) -> Tensor:
    """A value laid out as a weight is; the optimiser's count of steps, a single number, stays as it is."""
    if isinstance(weight, DTensor) and value.dim():
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value
