"""What Rheostat costs inside vLLM: the same model under the same load, with it and without.

    python -m benchmarks.overhead [--quick] [--model FOLDER --adapter FOLDER] [--json FILE] [--markdown FILE]

The load is `vllm bench serve`: fixed output length, end-of-text ignored. Bare vLLM gets the messages that Rheostat
compiles, so both do the same work: in the prompt mode the same instruction, in the adapter mode the same LoRA and the
same control text. Runs alternate, ours first in even rounds; a ratio is ours to bare of the same round.
The last row compares 64 dial settings in one batch with one setting, both ours, by a load of our own, as
`vllm bench serve` sends one setting a run.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import httpx
from rich.console import Console
from rich.progress import Progress

from benchmarks.overhead_report import Row, machine, table, with_section
from benchmarks.vllm_load import Body, Load, Run, bench_serve, prompts, send
from benchmarks.vllm_pair import NAME, Pair, Subject, serving
from rheostat_server import demo
from rheostat_server.engines.vllm.launch import DEMO_FLAGS

TARGET: Final = 0.97
SETTINGS: Final = 64
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole measurement: every mode under every load, and all settings under the last load, in each round."""

    modes: Sequence[str]
    loads: Sequence[Load]
    rounds: int


FULL: Final = Plan(
    modes=("off", "prompt", "adapter"), loads=(Load(1, 24, 64), Load(16, 192, 64), Load(64, 384, 64)), rounds=5
)
QUICK: Final = Plan(modes=("adapter",), loads=(Load(1, 4, 16), Load(64, 64, 16)), rounds=1)


def main() -> None:
    given = _arguments()
    plan = QUICK if given.quick else FULL
    subject = Subject(given.model.resolve(), given.adapter.resolve(), [*DEMO_FLAGS, *given.flags])
    console = Console(stderr=True)
    console.print("starting both servers, about a minute")
    with tempfile.TemporaryDirectory() as folder, serving(subject, Path(folder)) as pair:
        rows = measure(pair, plan, Path(folder), console)
    section = describe(rows, plan, subject)
    print(section)
    if given.json:
        figures = [{**asdict(row), "ratios": row.ratios()} for row in rows]
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    if given.markdown:
        text = given.markdown.read_text() if given.markdown.exists() else "# Benchmarks\n"
        given.markdown.write_text(with_section(text, section))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--model", type=Path, default=demo.base_folder())
    parser.add_argument("--adapter", type=Path, default=demo.adapter_folder())
    parser.add_argument("--json", type=Path, help="file for every figure")
    parser.add_argument("--markdown", type=Path, help="file whose section of this benchmark is replaced")
    parser.add_argument("flags", nargs="*", help="more flags for both servers, after --")
    return parser.parse_args()


def measure(pair: Pair, plan: Plan, folder: Path, console: Console) -> list[Row]:
    cases = [(mode, load) for mode in plan.modes for load in plan.loads]
    with Progress(console=console) as progress:
        task = progress.add_task("runs", total=plan.rounds * 2 * (len(cases) + 1))

        def tick() -> None:
            progress.advance(task)

        rows = [_against_bare(pair, plan.rounds, mode, load, folder, tick) for mode, load in cases]
        return [*rows, _many_settings(pair, plan.rounds, plan.loads[-1], tick)]


def _against_bare(pair: Pair, rounds: int, mode: str, load: Load, folder: Path, tick: Callable[[], None]) -> Row:
    control = {"mode": mode, **({} if mode == "off" else {"safety": 0.8, "helpfulness": 0.6})}

    def ours(conversations: Sequence[Sequence[Body]]) -> Run:
        return bench_serve(pair.ours, NAME, conversations, {"control": control}, load, folder)

    def bare(conversations: Sequence[Sequence[Body]]) -> Run:
        bodies = [_compiled(pair.ours, messages, control) for messages in conversations]
        return bench_serve(pair.bare, bodies[0]["model"], [body["messages"] for body in bodies], {}, load, folder)

    def texts(number: int) -> list[list[Body]]:
        return [[{"role": "user", "content": text}] for text in prompts(load.requests, seed=number)]

    both = [_alternated(ours, bare, texts(number), tick, ours_first=number % 2 == 0) for number in range(rounds)]
    what = f"mode {mode}: ours / bare vLLM"
    return Row(what, load.concurrency, [first for first, _ in both], [second for _, second in both])


def _compiled(url: str, messages: Sequence[Body], control: Mapping[str, object]) -> Body:
    """What Rheostat would send to the engine, by its dry run."""
    asked = {"model": NAME, "messages": messages, "control": control}
    body: Body = httpx.post(f"{url}/v1/control/plan", json=asked).raise_for_status().json()["engine_request"]
    return body


def _many_settings(pair: Pair, rounds: int, load: Load, tick: Callable[[], None]) -> Row:
    def many(texts: Sequence[str]) -> Run:
        bodies = [_dialled(text, index % SETTINGS) for index, text in enumerate(texts)]
        return asyncio.run(send(pair.ours, [_of_length(body, load) for body in bodies], load))

    def one(texts: Sequence[str]) -> Run:
        return asyncio.run(send(pair.ours, [_of_length(_dialled(text, 0), load) for text in texts], load))

    seeds = range(1000, 1000 + rounds)
    both = [_alternated(many, one, prompts(load.requests, seed=seed), tick, ours_first=seed % 2 == 0) for seed in seeds]
    what = f"{SETTINGS} dial settings in one batch / one setting"
    return Row(what, load.concurrency, [first for first, _ in both], [second for _, second in both])


def _dialled(text: str, setting: int) -> Body:
    dials = {"safety": (setting % 8) / 7, "helpfulness": (setting // 8) / 7}
    return {"model": NAME, "messages": [{"role": "user", "content": text}], "control": {"mode": "adapter", **dials}}


def _of_length(body: Body, load: Load) -> Body:
    fixed = {"max_completion_tokens": load.output_tokens, "ignore_eos": True, "temperature": 0}
    return {**body, **fixed, "stream": True}


def _alternated(
    ours: Callable[[T], Run], other: Callable[[T], Run], asked: T, tick: Callable[[], None], *, ours_first: bool
) -> tuple[Run, Run]:
    """One round: both once, on the same prompts."""
    runs: dict[Callable[[T], Run], Run] = {}
    for side in (ours, other) if ours_first else (other, ours):
        runs[side] = side(asked)
        tick()
    return runs[ours], runs[other]


def describe(rows: Sequence[Row], plan: Plan, subject: Subject) -> str:
    """The section of `docs/benchmarks.md`."""
    output = plan.loads[0].output_tokens
    return (
        "## Rheostat inside vLLM\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, which server and load share. Model `{subject.model.name}` with "
        f"the adapter `{subject.adapter_id}`, `{' '.join(subject.flags)}`; {plan.rounds} rounds, {output} output "
        f"tokens a request. Aim: a ratio of at least {TARGET}. Made by `python -m benchmarks.overhead`.\n\n"
        + table(rows)
    )


if __name__ == "__main__":
    main()
