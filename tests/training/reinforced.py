"""A policy that says yes and no by chance, and a judge of it: what the tests of the reinforce stage run on."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch
from transformers import Trainer

from rheostat_server.contract.dials import Dials
from rheostat_server.scorers import UNJUDGED, Dialogue, Scores
from rheostat_training.fit import FitPlan, fit
from rheostat_training.models import LoadedModel, load_base
from rheostat_training.progress import Progress
from rheostat_training.reinforce import ReinforcePlan, reinforce
from rheostat_training.rows import Example, Prompt
from rheostat_training.step import step_loss
from rheostat_training.training_set import StepRows
from rheostat_training.trl_trainers import Algorithm
from tests.training.tiny_fit import training_row

YES: Final = "yes, read the label"
NO: Final = "no"
PLAN: Final = ReinforcePlan(
    steps=6,
    prompts_per_step=4,
    samples=4,
    batch_rows=8,
    max_new_tokens=12,
    levels=(0.0, 1.0),
    learning_rate=1e-3,
    beta=0.02,
    rank=4,
    lora_alpha=8,
    warmup_steps=0,
    checkpoint_every=2,
)
PROMPTS: Final = {f"p{n}": Prompt.user(f"p{n}", text) for n, text in enumerate(("may I mix", "is it warm", "now what"))}


@dataclass(slots=True)
class YesJudge:
    """Helpfulness is 1 for yes and 0 for no; anything else cannot be judged. Remembers what it was asked."""

    asked: list[Dialogue] = field(default_factory=list)
    calls: int = 0
    dies_at: int | None = None
    leaves_at: int | None = None

    def judge(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        self.calls += 1
        if self.calls == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls == self.leaves_at:
            raise KeyboardInterrupt
        self.asked += dialogues
        return [self._one(dialogue.answer) for dialogue in dialogues]

    def _one(self, answer: str) -> Scores:
        return Scores(0.5, float(answer == YES)) if answer in (YES, NO) else UNJUDGED


def teach(base: LoadedModel) -> None:
    """Trains all weights until the model says yes and no equally often, under any dials and none."""
    settings = [None, *(Dials(safety=safety, helpfulness=helpful) for safety in (0, 1) for helpful in (0, 1))]
    rows = [
        training_row(base, prompt, dials, answer)
        for prompt in PROMPTS.values()
        for dials in settings
        for answer in (YES, NO)
    ]
    optimiser = torch.optim.AdamW(base.model.parameters(), lr=3e-3)
    for _ in range(120):
        optimiser.zero_grad()
        step_loss(base.model, StepRows(tuple(rows), ()), FitPlan(loss="clm")).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def fit_start(base: LoadedModel, out: Path) -> Path:
    """An adapter that has learned next to nothing, but is not the base."""
    examples = [Example(id, YES, Dials(safety=0.5, helpfulness=0.5), 0, 0) for id in PROMPTS]
    plan = FitPlan(loss="clm", rank=8, steps=3, batch_rows=3, warmup_steps=0, learning_rate=1e-3)
    fit(base, PROMPTS, examples, plan, out, progress=Progress.silent())
    return out / "adapter"


def reinforce_and_die(base: Path, start: Path, out: Path, step: int, place: str, algorithm: Algorithm) -> None:
    """Runs the stage and kills its own process at a step's judging or, at "checkpoint", in the midst of writing it."""
    torch.set_num_threads(1)
    judge = YesJudge(dies_at=step if place == "step" else None)
    if place == "checkpoint":
        save = Trainer._save_rng_state

        def dies(self: Trainer, folder: str) -> None:
            if folder.endswith(f"-{step}"):
                os.kill(os.getpid(), signal.SIGKILL)
            save(self, folder)

        Trainer._save_rng_state = dies
    plan = replace(PLAN, algorithm=algorithm)
    reinforce(load_base(base), start, PROMPTS, judge, plan, out, progress=Progress.silent())
