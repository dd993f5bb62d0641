"""A router's fit that takes a second, over two random experts; also in a process of its own that ends itself."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from rheostat_training import checkpoint
from rheostat_training.equilibrate.methods import midpo_fit
from rheostat_training.equilibrate.methods.midpo import EXPERT, Experts, RouterPlan
from rheostat_training.equilibrate.methods.midpo_fit import RouterReport, fit_router
from rheostat_training.lora import save_adapter, with_lora
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.rows import Pair
from rheostat_training.training_set import Positive, build_pair_set
from tests.training.killed import HalfAFile, die, replaced
from tests.training.tiny_fit import tiny_llama, tiny_prompts

FIT: Final = replace(EXPERT, rank=4, lora_alpha=8)
PLAN: Final = RouterPlan(steps=9, batch_rows=3, learning_rate=3e-2, warmup_steps=1, checkpoint_every=2)
PAIRS: Final = (
    Pair("p0", "yes, read the label first and open the window", "no, I do not think so"),
    Pair("p1", "no", "yes"),
    Pair("p2", "yes, read the label first", "no, no"),
    Pair("p3", "no, no, no", "yes, open the window"),
)
MOMENTS: Final = {
    "half a checkpoint is written": (checkpoint, "save_file", HalfAFile()),
    "the router is not saved": (midpo_fit, "save_file", die),
    "the router is saved and the report is not": (midpo_fit, "mean_gates", die),
}


def random_expert(base: LoadedModel, folder: Path, seed: int) -> Path:
    """An adapter on the down projections whose weights are random."""
    wrapped = with_lora(base.model, FIT, "base")
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=chance))
    return save_adapter(wrapped, folder)


def pairs(base: LoadedModel) -> list[Positive]:
    return build_pair_set(base, tiny_prompts(), PAIRS)


def route(tokenizer: Path, experts: Experts, out: Path, moment: str = "", plan: RouterPlan = PLAN) -> RouterReport:
    """The fit with one thread, in any process; where a moment is named, the process kills itself there."""
    torch.set_num_threads(1)
    replaced(MOMENTS.get(moment))
    base = tiny_llama(tokenizer)
    return fit_router(base, experts, pairs(base), plan, out, report_to="none", progress=Progress.silent())


def route_and_die(tokenizer: Path, experts: Experts, out: Path, moment: str) -> None:
    route(tokenizer, experts, out, moment)
