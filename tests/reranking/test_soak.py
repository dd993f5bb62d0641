"""A thousand reranked requests, many of which are left by their callers: nothing of them stays."""

import asyncio
import ctypes
import gc
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import httpx
import pytest

from rheostat_server.adapters import AdapterStore
from rheostat_server.engines import EngineRequest
from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.engines.embedded.job import Job
from rheostat_server.reranking.candidate import Candidate
from rheostat_server.reranking.race import Race
from rheostat_server.reranking.reranker import Reranker
from rheostat_server.scorers.batching import Batched
from rheostat_server.serve import make_runtime
from rheostat_server.settings import Settings
from tests.engines.app_server import Running, runtime_server
from tests.reranking.soaking import soak

PARTS: Final = 4
PART: Final = 250
PATIENCE: Final = 0.12
"""Seconds within which a caller leaves: about what an answer takes."""
GROWN_BYTES: Final = 6 * 2**20
"""What every part after the first may add to the process. One alone may add 17 MiB, which the allocator keeps once;
what requests leave behind grows in each."""
GROWN_BLOCKS: Final = 1000
"""The same in Python's own objects, four a request. 150 were seen; 45,000 where one answer's events stay a request."""
OURS: Final = (Candidate, Race, Reranker, EngineRequest, Job)
"""What there is of a request while it runs."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the process holds: bytes of memory, Python's own objects, and the objects of requests by kind."""

    resident: int
    blocks: int
    requests: Counter[str]


def now_held() -> Held:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is not held
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    requests = Counter(type(found).__name__ for found in gc.get_objects() if type(found) in OURS)
    return Held(pages * resource.getpagesize(), sys.getallocatedblocks(), requests)


def queued(url: str) -> float:
    """Dialogues that wait for a scorer, by the server's metrics."""
    lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("rheostat_scorer_queued{"))


def wait_until(holds: Callable[[], bool], *, within: float = 5) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come to rest"
        time.sleep(0.01)


def is_at_rest(engine: EmbeddedEngine, scorer: Batched, server: Running, tasks: int) -> bool:
    """Whether the engine and the scorer have nothing left to do, and the server's loop has no more than its tasks."""
    return (
        not (engine.running or engine.waiting or scorer.queued or scorer.busy)
        and len(asyncio.all_tasks(server.loop)) == tasks
    )


@pytest.mark.slow
async def test_a_thousand_requests_leave_nothing_behind(tiny_model: Path, tiny_scorers: Path) -> None:
    engine = EmbeddedEngine.load(tiny_model, served_name="tiny", threads=1)
    runtime = make_runtime(engine, AdapterStore(), Settings(), tiny_scorers)
    assert runtime.track is not None
    scorer = runtime.track.panel.members[0].scorer
    assert isinstance(scorer, Batched)
    with runtime_server(runtime) as server:
        tasks = len(asyncio.all_tasks(server.loop))
        ends: Counter[str] = Counter()
        held = [now_held()]
        for start in range(0, PARTS * PART, PART):
            ends += await soak(server.url, "tiny", range(start, start + PART), patience=PATIENCE)
            wait_until(lambda: is_at_rest(engine, scorer, server, tasks))
            held.append(now_held())
        waiting = queued(server.url)
        occupancy = await engine.occupancy()
    assert set(ends) == {"answered", "left"}
    assert min(ends.values()) > 0.1 * PARTS * PART
    assert (occupancy.running, occupancy.waiting) == (0, 0)
    assert runtime.track.requests == 0
    assert waiting == 0
    left = held[-1].requests - held[0].requests  # servers of other tests, which are idle, may hold some of theirs
    assert left <= Counter({"Job": 1}), "the worker's thread names the last one until another comes"
    settled = list(pairwise(held[1:]))
    assert min(after.blocks - before.blocks for before, after in settled) < GROWN_BLOCKS
    assert min(after.resident - before.resident for before, after in settled) < GROWN_BYTES
