"""Measures the demo model as it is served: held-out prompts at a grid of dials, asked over HTTP, read by the oracle."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean
from typing import Final

from rheostat_server.contract.dials import DialName, Dials
from rheostat_training.demo.asking import held_out
from rheostat_training.demo.measure import ORACLE, Measured, measure, well_formed_undialled
from rheostat_training.demo.recipe import TrialPlan
from rheostat_training.evaluate import OTHER, trials
from rheostat_training.progress import Progress
from rheostat_training.rows import Request, Sample
from rheostat_training.samplers.server import ServerSampler
from rheostat_training.worded import LEVELS

PROMPTS: Final = 300


def measure_served(url: str, *, mode: str, prompts: int = PROMPTS) -> Measured:
    """The first held-out prompts at each of 3 x 3 dials."""

    def ask(requests: Sequence[Request]) -> list[Sample]:
        return ServerSampler(url, "demo", mode).sample(requests, TrialPlan().sampling, progress=Progress.silent())

    return measure(mode, ask, held_out(prompts), {"oracle": ORACLE})


def mean_level(url: str, dial: DialName, asked: float) -> float:
    """The mean level by the oracle with one dial set and the other drawn at random, over a third of the prompts."""
    chance = Random(f"{dial} {asked}")
    prompts = held_out(PROMPTS // 3)
    requests = [
        Request(prompt.id, prompt.messages, Dials(0.5, 0.5).replaced({dial: asked, OTHER[dial]: chance.choice(LEVELS)}))
        for prompt in prompts.values()
    ]
    samples = ServerSampler(url, "demo", "adapter").sample(requests, TrialPlan().sampling, progress=Progress.silent())
    levels = [trial.level(dial) for trial in trials(prompts, samples, ORACLE)]
    return fmean(level for level in levels if level is not None)


def well_formed_of_base(url: str) -> float:
    """Share of well-formed answers of the base model alone, nothing cut off its distribution."""
    drawn = replace(TrialPlan().sampling, temperature=1.0)
    server = ServerSampler(url, "demo", "off")
    return well_formed_undialled(
        lambda asked: server.sample(asked, drawn, progress=Progress.silent()), held_out(PROMPTS)
    )
