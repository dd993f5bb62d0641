"""What best-of-N costs in time, inside vLLM: alone, and with many requests at once."""

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.overhead_report import machine
from benchmarks.rerank_servers import MODEL, rheostat
from rheostat_training.demo.asking import held_out
from rheostat_training.evaluate import grid
from rheostat_training.progress import Progress, Task
from rheostat_training.rows import Prompt

N: Final = 8
AT_ONCE: Final = 64
REQUESTS: Final = 192
ALONE: Final = 30
SAMPLING: Final[Mapping[str, Any]] = {"temperature": 0.7, "max_tokens": 160}

Control = Mapping[str, Any]
ONE: Final[Control] = {"mode": "off"}
PLAIN: Final[Control] = {"mode": "rerank", "candidates": N, "early_stop": False}
EARLY: Final[Control] = {"mode": "rerank", "candidates": N}


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: its seconds, those that it waited for scorers, and the candidates that it had."""

    seconds: float
    judging: float
    candidates: int


@dataclass(frozen=True, slots=True)
class Load:
    """Many requests at once: answers in a second, the mean number of candidates, the median seconds of a request."""

    answers_per_s: float
    candidates: float
    seconds: float


def speed(given: argparse.Namespace, folder: Path) -> str:
    with Progress.auto().task("time", given.rounds * 7, unit="runs") as task:
        with rheostat(folder, engine="vllm") as url:
            alone = asyncio.run(_alone(url, given.rounds, task))
            following = asyncio.run(_crowds(url, given.rounds, task, {"one answer": ONE, "N = 8": PLAIN}))
        with rheostat(folder, engine="vllm", environment={"RHEOSTAT_FOLLOW_LOAD": "false"}) as url:
            fixed = asyncio.run(_crowds(url, given.rounds, task, {"N = 8": PLAIN, "N = 8, early stop": EARLY}))
    return "\n".join([_head(given), "", *_alone_lines(alone), "", *_crowd_lines(following, fixed)])


def _head(given: argparse.Namespace) -> str:
    return (
        f"## Reranking: speed\n\nThe demo in vLLM, its own scorers on the same processor; {machine()}; {given.rounds} "
        f"rounds. Made by `python -m benchmarks.rerank speed --rounds {given.rounds}`."
    )


def _alone_lines(alone: Mapping[str, Sequence[Answer]]) -> list[str]:
    one = _median(alone["one answer"])
    lines = [
        f"One request at a time, {ALONE} prompts a round:",
        "",
        "| | ms, median | of one answer | waited for scorers, share of the time |",
        "|---|---|---|---|",
    ]
    for name, answers in alone.items():
        share = sum(answer.judging for answer in answers) / sum(answer.seconds for answer in answers)
        lines.append(f"| {name} | {1000 * _median(answers):.0f} | {_median(answers) / one:.2f} | {share:.3f} |")
    return lines


def _crowd_lines(following: Mapping[str, Sequence[Load]], fixed: Mapping[str, Sequence[Load]]) -> list[str]:
    rows = {
        "one answer": following["one answer"],
        "N = 8 at most, following the load": following["N = 8"],
        "N = 8": fixed["N = 8"],
        "N = 8, early stop": fixed["N = 8, early stop"],
    }
    base = statistics.median(load.answers_per_s for load in rows["one answer"])
    lines = [
        f"{AT_ONCE} requests at once, {REQUESTS} a round:",
        "",
        "| | answers/s: median (min to max) | of one answer | candidates, mean | s a request |",
        "|---|---|---|---|---|",
    ]
    for name, loads in rows.items():
        rates = [load.answers_per_s for load in loads]
        lines.append(
            f"| {name} | {statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f}) "
            f"| {statistics.median(rates) / base:.2f} | {statistics.fmean(load.candidates for load in loads):.1f} "
            f"| {statistics.median(load.seconds for load in loads):.2f} |"
        )
    return lines


def _median(answers: Sequence[Answer]) -> float:
    return statistics.median(answer.seconds for answer in answers)


async def _alone(url: str, rounds: int, task: Task) -> dict[str, list[Answer]]:
    """The three ways by turns, prompt after prompt, so that a slow minute falls on all of them."""
    ways = {"one answer": ONE, "N = 8": PLAIN, "N = 8, early stop": EARLY}
    found: dict[str, list[Answer]] = {name: [] for name in ways}
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        for _ in range(3):
            await asyncio.gather(*(_ask(http, number, control) for number, control in enumerate(ways.values())))
        for _ in range(rounds):
            for number in range(ALONE):
                for name, control in ways.items():
                    found[name].append(await _ask(http, number, control))
            task.advance(3)
    return found


async def _crowds(url: str, rounds: int, task: Task, ways: Mapping[str, Control]) -> dict[str, list[Load]]:
    found: dict[str, list[Load]] = {name: [] for name in ways}
    await _crowd(url, next(iter(ways.values())))
    for _ in range(rounds):
        for name, control in ways.items():
            found[name].append(await _crowd(url, control))
            task.advance()
    return found


async def _crowd(url: str, control: Control) -> Load:
    room = asyncio.Semaphore(AT_ONCE)
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:

        async def one(number: int) -> Answer:
            async with room:
                return await _ask(http, number, control)

        started = time.perf_counter()
        answers = await asyncio.gather(*(one(number) for number in range(REQUESTS)))
        seconds = time.perf_counter() - started
    return Load(len(answers) / seconds, statistics.fmean(answer.candidates for answer in answers), _median(answers))


@cache
def _prompts() -> list[Prompt]:
    return list(held_out(ALONE).values())


async def _ask(http: httpx.AsyncClient, number: int, control: Control) -> Answer:
    """One prompt at one setting of the dials.

    Without a seed: vLLM's CPU build dies of a seeded request whose prompt is read in parts ("CPU Generator does not use
    offset").
    """
    dials = {} if control["mode"] == "off" else grid()[number % 9].as_dict()
    body = {
        **SAMPLING,
        "model": MODEL,
        "messages": list(_prompts()[number % ALONE].messages),
        "control": {**control, **dials},
    }
    started = time.perf_counter()
    response = await http.post("/v1/chat/completions", json=body)
    seconds = time.perf_counter() - started
    if response.status_code != httpx.codes.OK:
        raise RuntimeError(f"the server answered {response.status_code}: {response.text}")
    receipt = response.json()["control"]
    judging = receipt["timing_ms"].get("scorers", 0.0) / 1000
    return Answer(seconds, judging, receipt.get("candidates", {}).get("generated", 1))
