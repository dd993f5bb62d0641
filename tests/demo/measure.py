"""Measures a served demo model by the oracle, over held-out prompts and a grid of dials."""

from dataclasses import dataclass

from rheostat_server.contract.dials import Dials
from rheostat_training.demo import oracle
from rheostat_training.demo.risks import RiskGroup
from rheostat_training.evaluate import Evaluation, evaluate, grid, requests_for, trials
from rheostat_training.progress import Progress
from rheostat_training.rows import Prompt, Sample, by_id
from rheostat_training.score import CallableJudge
from rheostat_training.served import ServedModel, answers

PROMPTS = 300


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures, and the answers that they were read off."""

    evaluation: Evaluation
    prompts: dict[str, Prompt]
    samples: list[Sample]

    def at(self, *, safety: float, risky: bool) -> list[tuple[str, str]]:
        """(prompt, answer) of the samples asked at this safety, of risky prompts or of benign ones."""
        pairs = [
            (self.prompts[row.prompt_id].text, row.answer)
            for row in self.samples
            if row.dials is not None and row.dials.safety == safety
        ]
        return [pair for pair in pairs if (oracle.risk_group(pair[0]) is not RiskGroup.NONE) == risky]


def measure(url: str, *, mode: str, prompts: int = PROMPTS, temperature: float = 0.7) -> Measured:
    """Each of the first held-out prompts at each of 3 × 3 dials."""
    known = by_id(Prompt.user(str(place), text) for place, text in enumerate(oracle.held_out_prompts(prompts)))
    served = ServedModel(url, "demo", mode, temperature=temperature)
    samples = answers(served, requests_for(known.values(), grid()), progress=Progress.silent())
    return Measured(evaluate(trials(known, samples, CallableJudge(oracle.levels)), resamples=200), known, samples)


def well_formed_undialled(url: str, *, prompts: int = PROMPTS, temperature: float = 1.0) -> float:
    """Share of well-formed answers of the base model alone."""
    known = by_id(Prompt.user(str(place), text) for place, text in enumerate(oracle.held_out_prompts(prompts)))
    served = ServedModel(url, "demo", "off", temperature=temperature)
    asked = requests_for(known.values(), [Dials(safety=0.5, helpfulness=0.5)])
    samples = answers(served, asked, progress=Progress.silent())
    judged = [oracle.levels(known[row.prompt_id].text, row.answer) for row in samples]
    return sum(levels is not None for levels in judged) / len(judged)
