"""A safety patch that takes a second, also in a process of its own that ends itself by SIGKILL."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from rheostat_training.conditioning import Encoded
from rheostat_training.equilibrate.methods import safe_patching_fit
from rheostat_training.equilibrate.methods.safe_patching import SafePatchPlan
from rheostat_training.equilibrate.methods.safe_patching_fit import SafePatchReport, fit_safe_patch
from rheostat_training.progress import Progress
from rheostat_training.training_set import TrainingRow
from tests.training.killed import die, replaced
from tests.training.tiny_fit import tiny_llama

PLAN: Final = SafePatchPlan(
    rank=4,
    lora_alpha=8,
    steps=8,
    batch_rows=4,
    learning_rate=1e-2,
    warmup_steps=1,
    importance_rows=3,
    top_enhance=0.3,
    top_loosen=0.2,
    retention=0.5,
    export_rank=4,
)


def harmful() -> list[TrainingRow]:
    """Stand-ins for unsafe answers: six rows of ids."""
    chance = torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 90, (count,), generator=chance).tolist())

    return [TrainingRow(Encoded(ids(4 + number), ids(9))) for number in range(6)]


def patch(tokenizer: Path, out: Path, plan: SafePatchPlan = PLAN) -> SafePatchReport:
    torch.set_num_threads(1)
    return fit_safe_patch(tiny_llama(tokenizer), harmful(), plan, out, progress=Progress.silent())


MOMENTS: Final = {
    "both patches are learnt": (safe_patching_fit, "_export", die),
    "the adapter is being saved": (safe_patching_fit, "save_adapter", die),
    "the adapter is saved and the report is not": (safe_patching_fit, "write_json", die),
}


def patch_and_die(tokenizer: Path, out: Path, moment: str) -> None:
    replaced(MOMENTS[moment])
    patch(tokenizer, out)


def patch_for_long(tokenizer: Path, out: Path) -> None:
    patch(tokenizer, out, replace(PLAN, steps=4000))
