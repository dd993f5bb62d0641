"""How near reranked answers come to their dials, and what early stop saves of their tokens."""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.overhead_report import machine
from benchmarks.rerank_servers import MODEL, rheostat
from rheostat_server.demo import bundle_folder, scorers_file
from rheostat_server.scorers import Dialogue, LocalScorer, Scores
from rheostat_server.scorers.build import read_scorers
from rheostat_server.scorers.classifier_scorer import load_classifier
from rheostat_server.scorers.spec.classifier import ClassifierSpec
from rheostat_training.demo.asking import held_out
from rheostat_training.demo.judging import judges_of
from rheostat_training.evaluate import Evaluation, evaluate, grid, trials
from rheostat_training.progress import Progress, Task
from rheostat_training.rows import Prompt, Sample
from rheostat_training.score import Judge

AT_ONCE: Final = 16
SAMPLING: Final[Mapping[str, Any]] = {"temperature": 0.7, "max_tokens": 160}
Control = Mapping[str, Any]

MODES: Final[Mapping[str, Control]] = {
    "prompt": {"mode": "prompt"},
    "rerank, N = 8": {"mode": "rerank", "candidates": 8, "early_stop": False},
    "rerank, N = 16": {"mode": "rerank", "candidates": 16, "early_stop": False},
    "prompt+rerank, N = 8": {"mode": "prompt+rerank", "candidates": 8, "early_stop": False},
    "prompt+rerank, N = 16": {"mode": "prompt+rerank", "candidates": 16, "early_stop": False},
    "adapter": {"mode": "adapter"},
    "adapter+rerank, N = 8": {"mode": "adapter+rerank", "candidates": 8, "early_stop": False},
    "adapter+rerank, N = 16": {"mode": "adapter+rerank", "candidates": 16, "early_stop": False},
}
EARLY: Final[Mapping[str, Control]] = {
    "plain": {"mode": "rerank", "candidates": 16, "early_stop": False},
    "early stop": {"mode": "rerank", "candidates": 16, "early_stop": True},
}


@dataclass(frozen=True, slots=True)
class Answers:
    """One mode's answers at every setting of the dials, and the tokens that all their candidates took."""

    samples: Sequence[Sample]
    tokens: int


@dataclass(frozen=True, slots=True)
class Selector:
    """The demo's selecting scorer as a judge of an evaluation."""

    scorer: LocalScorer

    @classmethod
    def load(cls) -> "Selector":
        (spec,) = read_scorers(scorers_file()).scorers
        if not isinstance(spec, ClassifierSpec):
            raise TypeError(f"the demo selects by a scorer of kind {spec.kind}; this benchmark knows classifiers")
        return cls(load_classifier(spec))

    def judge(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        return self.scorer.scores(dialogues)


def quality(given: argparse.Namespace, folder: Path) -> str:
    """The modes side by side."""
    lines = ["| mode | judge | dial | MP | BT | Err (95 % interval) | cross-talk |", "|---|---|---|---|---|---|---|"]
    for name, (_, by_judge) in _measured(MODES, given, folder).items():
        for judge, found in by_judge.items():
            for dial, figures in (("safety", found.safety), ("helpfulness", found.helpfulness)):
                cells = (
                    f"{figures.MP.value:.3f} | {figures.BT.value:.3f} | {figures.Err} | {figures.cross_talk.value:.3f}"
                )
                lines.append(f"| {name} | {judge} | {dial} | {cells} |")
    return "\n".join([f"## Reranking: quality, {given.engine}", "", _head(given), "", *lines])


def early(given: argparse.Namespace, folder: Path) -> str:
    """One N with and without early stop."""
    found = _measured(EARLY, given, folder)
    plain = found["plain"][0].tokens
    lines = ["| N = 16 | tokens, share of plain | judge | Err safety | Err helpfulness |", "|---|---|---|---|---|"]
    for name, (answers, by_judge) in found.items():
        for judge, figures in by_judge.items():
            errors = f"{figures.safety.Err} | {figures.helpfulness.Err}"
            lines.append(f"| {name} | {answers.tokens:,}, {answers.tokens / plain:.3f} | {judge} | {errors} |")
    return "\n".join([f"## Reranking: early stop, {given.engine}", "", _head(given), "", *lines])


def _head(given: argparse.Namespace) -> str:
    return (
        f"{given.prompts} held-out prompts x 9 settings of the dials, one answer each, temperature "
        f"{SAMPLING['temperature']}; {machine()}. Made by `python -m benchmarks.rerank {given.section} --engine "
        f"{given.engine} --prompts {given.prompts}`."
    )


def _measured(
    modes: Mapping[str, Control], given: argparse.Namespace, folder: Path
) -> dict[str, tuple[Answers, dict[str, Evaluation]]]:
    prompts = held_out(given.prompts)
    judges = {"selector": Selector.load(), **judges_of(bundle_folder())}
    environment = {"RHEOSTAT_FOLLOW_LOAD": "false"}
    # vLLM's CPU build dies of a seeded request whose prompt is read in parts ("CPU Generator does not use offset").
    seeded = given.engine != "vllm"
    with (
        rheostat(folder, engine=given.engine, environment=environment) as url,
        Progress.auto().task("ask", len(modes) * len(prompts) * 9, unit="answers") as task,
    ):
        answers = {
            name: asyncio.run(ask(url, prompts, control, task, seeded=seeded)) for name, control in modes.items()
        }
    return {name: (each, _judged(prompts, each, judges)) for name, each in answers.items()}


def _judged(prompts: Mapping[str, Prompt], answers: Answers, judges: Mapping[str, Judge]) -> dict[str, Evaluation]:
    return {name: evaluate(trials(prompts, answers.samples, judge)) for name, judge in judges.items()}


async def ask(url: str, prompts: Mapping[str, Prompt], control: Control, task: Task, *, seeded: bool = True) -> Answers:
    """Every prompt at each of 3 x 3 dials."""
    room = asyncio.Semaphore(AT_ONCE)
    settings = [(prompt, dials) for prompt in prompts.values() for dials in grid()]

    async with httpx.AsyncClient(base_url=url, timeout=600) as http:

        async def one(place: int) -> tuple[Sample, int]:
            prompt, dials = settings[place]
            body = {
                **({"seed": 1000 * place} if seeded else {}),
                **SAMPLING,
                "model": MODEL,
                "messages": list(prompt.messages),
                "control": {**control, **dials.as_dict()},
            }
            async with room:
                response = await http.post("/v1/chat/completions", json=body)
            response.raise_for_status()
            told = response.json()
            task.advance()
            text = told["choices"][0]["message"]["content"]
            tokens = told["usage"]["completion_tokens"]
            return Sample(prompt.id, 0, text.strip(), tokens, finished=True, dials=dials), tokens

        found = await asyncio.gather(*(one(place) for place in range(len(settings))))
    return Answers([sample for sample, _ in found], sum(tokens for _, tokens in found))
