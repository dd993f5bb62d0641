"""Measures the demo model as it is served: held-out prompts at a grid of dials, asked over HTTP, read by the oracle."""

from collections.abc import Sequence

from rheostat_training.demo import oracle
from rheostat_training.demo.measure import ORACLE, Measured, held_out, measure
from rheostat_training.progress import Progress
from rheostat_training.rows import Request, Sample
from rheostat_training.served import ServedModel, answers

PROMPTS = 300


def measure_served(url: str, *, mode: str) -> Measured:
    """The first held-out prompts at each of 3 x 3 dials."""

    def ask(requests: Sequence[Request]) -> list[Sample]:
        return answers(ServedModel(url, "demo", mode), requests, progress=Progress.silent())

    return measure(mode, ask, held_out(PROMPTS), {"oracle": ORACLE})


def well_formed_undialled(url: str) -> float:
    """Share of well-formed answers of the base model alone, nothing cut off its distribution."""
    prompts = held_out(PROMPTS)
    asked = [Request(prompt.id, prompt.messages) for prompt in prompts.values()]
    said = answers(ServedModel(url, "demo", "off", temperature=1.0), asked, progress=Progress.silent())
    good = [oracle.levels(prompts[row.prompt_id].text, row.answer) is not None for row in said]
    return sum(good) / len(good)
