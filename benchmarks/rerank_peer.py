"""Rheostat beside optillm's `bon`: one bare vLLM behind both, one N, the same prompts and dials."""

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.overhead_report import machine
from benchmarks.rerank_servers import MODEL, bare_vllm, optillm, rheostat
from rheostat_server import demo
from rheostat_server.contract.dials import Dials
from rheostat_server.contract.wordings import default_wordings
from rheostat_training.demo.asking import held_out
from rheostat_training.demo.judging import judges_of
from rheostat_training.evaluate import evaluate, grid, trials
from rheostat_training.progress import Progress
from rheostat_training.rows import Messages, Prompt, Sample

N: Final = 8
MAX_TOKENS: Final = 160
Control = Mapping[str, Any]
Body = dict[str, Any]


@dataclass(slots=True)
class Side:
    """One way to ask: where, how a request is made, and what came of it."""

    name: str
    url: str
    control: Control | None
    seconds: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def body(self, messages: Messages, dials: Dials) -> Body:
        """optillm knows no dials: they are worded in a system message, as our prompt mode words them."""
        if self.control is not None:
            control: Body = {**self.control, **{str(name): value for name, value in dials.as_dict().items()}}
            asked: Body = {"messages": list(messages), "temperature": 1, "control": control}
        else:
            asked = {"messages": default_wordings().apply(messages, dials)}
        return {"model": MODEL, "max_tokens": MAX_TOKENS, **asked}


def peer(given: argparse.Namespace, folder: Path) -> str:
    prompts = held_out(given.prompts)
    with (
        bare_vllm(folder) as upstream,
        rheostat(folder, engine="remote", upstream=upstream, environment=_ours()) as ours,
        optillm(given.optillm, upstream, folder, candidates=N) as theirs,
    ):
        sides = [
            Side("Rheostat, rerank", ours, {"mode": "rerank", "candidates": N, "early_stop": False}),
            Side("Rheostat, prompt+rerank", ours, {"mode": "prompt+rerank", "candidates": N, "early_stop": False}),
            Side("Rheostat, prompt+rerank, early stop", ours, {"mode": "prompt+rerank", "candidates": N}),
            Side("optillm, bon, dials worded", theirs, None),
        ]
        asyncio.run(_ask_all(sides, prompts))
    return "\n".join([_head(given), "", *_lines(sides, prompts)])


def _ours() -> dict[str, str]:
    return {"RHEOSTAT_SCORERS": str(demo.scorers_file())}


def _head(given: argparse.Namespace) -> str:
    return (
        f"## Reranking: beside optillm\n\nOne bare vLLM with the demo's base model behind both, N = {N}, "
        f"{given.prompts} held-out prompts x 9 settings of the dials, one request at a time by turns, temperature 1 "
        f"(optillm's own), {MAX_TOKENS} tokens at most; {machine()}. optillm is not told the dials but in words, as "
        "our prompt mode words them, and rates each candidate by a call of the same model. Made by "
        "`python -m benchmarks.rerank peer --optillm …`."
    )


def _lines(sides: Sequence[Side], prompts: Mapping[str, Prompt]) -> list[str]:
    judges = judges_of(demo.bundle_folder())
    theirs = statistics.median(sides[-1].seconds)
    lines = [
        "| | ms to the answer, median | faster than optillm | judge | Err safety | Err helpfulness |",
        "|---|---|---|---|---|---|",
    ]
    for side in sides:
        median = statistics.median(side.seconds)
        for judge in ("oracle", "judges"):
            found = evaluate(trials(prompts, side.samples, judges[judge]))
            errors = f"{found.safety.Err} | {found.helpfulness.Err}"
            lines.append(f"| {side.name} | {1000 * median:.0f} | {theirs / median:.1f} | {judge} | {errors} |")
    return lines


async def _ask_all(sides: Sequence[Side], prompts: Mapping[str, Prompt]) -> None:
    settings = [(prompt, dials) for prompt in prompts.values() for dials in grid()]
    async with httpx.AsyncClient(timeout=600) as http:
        for side in sides:
            await _ask(http, side, *settings[0])
            side.seconds.clear()
            side.samples.clear()
        with Progress.auto().task("ask", len(settings), unit="settings") as task:
            for prompt, dials in settings:
                for side in sides:
                    await _ask(http, side, prompt, dials)
                task.advance()


async def _ask(http: httpx.AsyncClient, side: Side, prompt: Prompt, dials: Dials) -> None:
    body = side.body(prompt.messages, dials)
    started = time.perf_counter()
    response = await http.post(f"{side.url}/v1/chat/completions", json=body, headers={"Authorization": "Bearer none"})
    side.seconds.append(time.perf_counter() - started)
    response.raise_for_status()
    text = response.json()["choices"][0]["message"]["content"] or ""
    side.samples.append(Sample(prompt.id, 0, text.strip(), 0, finished=True, dials=dials))
