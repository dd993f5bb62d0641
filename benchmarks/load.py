"""Twice as much as the server can do, from twenty keys: who is answered, what is recorded, and who waits.

    python -m benchmarks.load [--minutes 15] [--running 8] [--reserved 2] [--markdown FILE]

The demo on the embedded engine, with a policy file, the audit log and a fair queue. Nineteen keys flood it at random
times; one asks one thing at a time, at half of an even share of the capacity, and first it is measured alone. The flood
begins a minute before the rest, as nobody can tell it from others while it is new. Its requests are whole and streamed,
in several modes, some wrong, some broken off by their callers. Reported: answers and refusals by status, whether the
audit log holds each request exactly once, the server's memory, and the 99th percentile of the well-behaved key beside
its value alone.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.overhead_report import machine, with_section
from rheostat_server.callers.keys import digest_of
from rheostat_training.demo.asking import held_out
from rheostat_training.progress import Progress
from tools.processes import Process, free_port, started, wait_until_ready

KEYS: Final = 20
GOOD: Final = "good"
ALONE: Final = "alone"
"""The key that is measured while nobody else is there: what it uses then is not held against `GOOD`."""
MODES: Final = ("adapter", "prompt", "adapter", "prompt+rerank")
DOCUMENTED: Final = frozenset({200, 401, 403, 404, 422, 429, 503, 504})
MOST_TOKENS: Final = 60
BROKEN_OFF: Final = -1
SERVER_GONE: Final = -2
NEW_SECONDS: Final = 60.0
"""For so long a flood is new."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: who sent it, when, how it ended, and after how many seconds."""

    request_id: str
    caller: str
    at: float
    status: int
    seconds: float


@dataclass(slots=True)
class Load:
    """Sends requests and keeps what came of them."""

    http: httpx.AsyncClient
    prompts: list[list[dict[str, Any]]]
    draw: random.Random
    sent: list[Sent] = field(default_factory=list)
    number: int = 0

    async def one(self, caller: str, *, plain: bool = False) -> Sent:
        """A request of a caller; not `plain`, it may be wrong, or be broken off."""
        self.number += 1
        request_id, chance = f"load-{self.number}", self.draw.random()
        body: dict[str, Any] = {
            "model": "demo" if plain or chance > 0.02 else "lost",
            "messages": self.draw.choice(self.prompts),
            "max_tokens": MOST_TOKENS,
            "stream": self.draw.random() < 0.5,
            "control": {"safety": self.draw.random(), "mode": "adapter" if plain else self.draw.choice(MODES)},
        }
        headers = {"Authorization": f"Bearer {key_of(caller)}", "X-Request-ID": request_id}
        patience = 120.0 if plain or chance < 0.95 else self.draw.uniform(0.01, 1.0)
        began = time.perf_counter()
        status = await self._status(body, headers, patience)
        found = Sent(request_id, caller, began, status, time.perf_counter() - began)
        self.sent.append(found)
        return found

    async def _status(self, body: dict[str, Any], headers: dict[str, str], patience: float) -> int:
        try:
            async with asyncio.timeout(patience):
                response = await self.http.post("/v1/chat/completions", json=body, headers=headers)
        except TimeoutError:
            return BROKEN_OFF
        except httpx.TransportError:
            return SERVER_GONE
        if body["stream"] and response.status_code == 200 and not response.text.endswith("data: [DONE]\n\n"):
            return SERVER_GONE
        return response.status_code


def key_of(caller: str) -> str:
    return f"benchmark-key-of-{caller}"


def flooders() -> list[str]:
    return [f"flood-{number}" for number in range(1, KEYS)]


def policy_text() -> str:
    keys = "\n".join(
        f'  - {{name: {name}, sha256: "{digest_of(key_of(name))}", envelope: everyone}}'
        for name in [ALONE, GOOD, *flooders()]
    )
    return f"envelopes: {{everyone: {{safety: {{min: 0.3}}, candidates: 4}}}}\nkeys:\n{keys}\n"


@contextmanager
def server(folder: Path, *, running: int, reserved: int) -> Generator[tuple[str, Process], None, None]:
    (folder / "policy.yaml").write_text(policy_text())
    environment = {
        "RHEOSTAT_POLICY": str(folder / "policy.yaml"),
        "RHEOSTAT_AUDIT": str(folder / "audit.jsonl"),
        "RHEOSTAT_AUDIT_MAX_BYTES": str(2**20),
        "RHEOSTAT_AUDIT_BACKUPS": "10000",
        "RHEOSTAT_MAX_RUNNING": str(running),
        "RHEOSTAT_RESERVED_RUNNING": str(reserved),
        "RHEOSTAT_MAX_WAITING": "64",
        "RHEOSTAT_QUEUE_SECONDS": "10",
    }
    log, port = folder / "server.log", free_port()
    with started(["rheostat", "serve", "--port", str(port)], log=log, environment=environment) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}/ready", log=log)
        yield f"http://127.0.0.1:{port}", process


async def closed_loop(load: Load, *, at_once: int, seconds: float) -> float:
    """Answers a second of so many requests that are each followed by another key's as soon as it is answered."""
    until, begin = time.monotonic() + seconds, len(load.sent)

    async def ask() -> None:
        while time.monotonic() < until:
            await load.one(load.draw.choice(flooders()))

    began = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(at_once)))
    done = [one for one in load.sent[begin:] if one.status == 200]
    return len(done) / (time.monotonic() - began)


async def alone(load: Load, *, count: int) -> list[float]:
    """Seconds of a well-behaved key's requests, one after the other, with nobody else there."""
    return [(await load.one(ALONE, plain=True)).seconds for _ in range(count)]


async def flood(load: Load, process: Process, *, rate: float, seconds: float) -> list[tuple[float, float]]:
    """Open arrivals at `rate` a second. Returns the server's memory in MiB every ten seconds."""
    memory: list[tuple[float, float]] = []
    tasks: set[asyncio.Task[Any]] = set()
    began = time.monotonic()
    with Progress.auto().task("load", int(seconds), unit="seconds") as task:
        told = 0
        while (gone := time.monotonic() - began) < seconds:
            request = asyncio.ensure_future(load.one(load.draw.choice(flooders())))
            tasks.add(request)
            request.add_done_callback(tasks.discard)
            if int(gone) > told:
                task.advance(int(gone) - told)
                told = int(gone)
                if told % 10 == 0:
                    memory.append((gone, resident(process)))
            await asyncio.sleep(load.draw.expovariate(rate))
    await asyncio.gather(*tasks)
    return memory


async def well_behaved(load: Load, *, pause: float, seconds: float) -> None:
    """Requests of the well-behaved key, one at a time, `pause` seconds between them on average."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await load.one(GOOD, plain=True)
        await asyncio.sleep(load.draw.uniform(0.5, 1.5) * pause)


def resident(process: Process) -> float:
    """MiB of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The audit log, its rotated files too."""
    lines = (line for path in folder.glob("audit.jsonl*") for line in path.read_text().splitlines())
    return [json.loads(line) for line in lines if line.strip()]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure(given: argparse.Namespace, folder: Path, url: str, process: Process) -> list[str]:
    prompts = [[dict(message) for message in prompt.messages] for prompt in held_out(30).values()]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as http:
        load = Load(http, prompts, random.Random(1))
        await alone(load, count=5)
        quiet = await alone(load, count=given.alone)
        capacity = await closed_loop(load, at_once=2 * given.running, seconds=min(30.0, given.minutes * 20))
        begin = len(load.sent)
        seconds = NEW_SECONDS + given.minutes * 60
        memory, _ = await asyncio.gather(
            flood(load, process, rate=2 * capacity, seconds=seconds),
            well_behaved(load, pause=2 * KEYS / capacity, seconds=seconds),
        )
    return report(load, begin, quiet=quiet, capacity=capacity, memory=memory, audit=recorded(folder), given=given)


def report(
    load: Load, begin: int, *, quiet: list[float], capacity: float, memory: list[tuple[float, float]],
    audit: list[dict[str, Any]], given: argparse.Namespace,
) -> list[str]:  # fmt: skip
    flooded = load.sent[begin:]
    statuses = Counter(one.status for one in flooded)
    later = flooded[0].at + NEW_SECONDS
    good = [one.seconds for one in flooded if one.caller == GOOD and one.status == 200 and one.at >= later]
    early = [one.seconds for one in flooded if one.caller == GOOD and one.status == 200 and one.at < later]
    records = Counter(record["request_id"] for record in audit)
    refused = Counter(record["code"] for record in audit if record.get("caller") == GOOD and "code" in record)
    others = [one.seconds for one in flooded if one.caller != GOOD and one.status == 200]
    undocumented = sum(count for status, count in statuses.items() if status not in DOCUMENTED | {BROKEN_OFF})
    sent = {one.request_id for one in load.sent}
    once = sum(records[request_id] == 1 for request_id in sent)
    half = [size for at, size in memory if at > memory[-1][0] / 2]
    extra = sum(count for found, count in records.items() if found not in sent)
    sizes = f"{memory[0][1]:.0f}, {half[0]:.0f}, {half[-1]:.0f}"
    return [
        "| | |",
        "|---|---|",
        f"| capacity, answers a second, {given.running} at once | {capacity:.1f} |",
        f"| requests sent in {given.minutes + NEW_SECONDS / 60:g} minutes | {len(flooded)} |",
        f"| by status (−1: broken off by its caller) | {', '.join(f'{s}: {n}' for s, n in sorted(statuses.items()))} |",
        f"| neither an answer nor a documented refusal | {undocumented} |",
        f"| of {len(sent)} requests in all, in the audit log exactly once | {once} |",
        f"| records of no request | {extra} |",
        f"| memory, MiB: at 10 s, at half of the time, at the end | {sizes} |",
        f"| well-behaved key alone, seconds: median, p99 of {len(quiet)} | {_two(quiet)} |",
        f"| well-behaved key in the flood: median, p99 of {len(good)} | {_two(good)} |",
        f"| the same in the first minute: median, longest of {len(early)} | {_two(early)} |",
        f"| its refusals by code | {dict(refused) or 'none'} |",
        f"| p99 in the flood / alone | {percentile(good, 0.99) / percentile(quiet, 0.99):.2f} |",
        f"| the others: median, p99 of {len(others)} answers | {_two(others)} |",
    ]


def _two(values: list[float]) -> str:
    return f"{statistics.median(values):.3f}, {percentile(values, 0.99):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--running", type=int, default=8, help="requests that run at once")
    parser.add_argument("--reserved", type=int, default=2, help="of those, kept for callers that used little lately")
    parser.add_argument("--alone", type=int, default=200, help="requests of the well-behaved key alone")
    parser.add_argument("--markdown", type=Path, help="file whose section of this benchmark is replaced")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        server(Path(name), running=given.running, reserved=given.reserved) as (url, process),
    ):
        lines = asyncio.run(measure(given, Path(name), url, process))
    head = (
        f"## Limits under load\n\nTwice the capacity from {KEYS} keys for {given.minutes:g} minutes, the demo on the "
        f"embedded engine, client and server on one machine; {machine()}. Made by `python -m benchmarks.load --minutes "
        f"{given.minutes:g} --running {given.running} --reserved {given.reserved}`."
    )
    section = "\n".join([head, "", *lines])
    print(section)
    if given.markdown:
        text = given.markdown.read_text() if given.markdown.exists() else "# Benchmarks\n"
        given.markdown.write_text(with_section(text, section, "limits-load"))


if __name__ == "__main__":
    main()
