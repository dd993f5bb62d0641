"""Measures the demo model as it is served: held-out prompts at a grid of dials, asked over HTTP, read by the oracle."""

from collections.abc import Sequence

from rheostat_training.demo.measure import ORACLE, Measured, held_out, measure, well_formed_undialled
from rheostat_training.progress import Progress
from rheostat_training.rows import Request, Sample
from rheostat_training.served import ServedModel, answers

PROMPTS = 300


def measure_served(url: str, *, mode: str) -> Measured:
    """The first held-out prompts at each of 3 x 3 dials."""

    def ask(requests: Sequence[Request]) -> list[Sample]:
        return answers(ServedModel(url, "demo", mode), requests, progress=Progress.silent())

    return measure(mode, ask, held_out(PROMPTS), {"oracle": ORACLE})


def well_formed_of_base(url: str) -> float:
    """Share of well-formed answers of the base model alone, nothing cut off its distribution."""
    served = ServedModel(url, "demo", "off", temperature=1.0)
    return well_formed_undialled(lambda asked: answers(served, asked, progress=Progress.silent()), held_out(PROMPTS))
