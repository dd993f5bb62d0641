"""One light caller beside 19 that flood waits until some running request ends; first come first served, for them all.

`python -m tests.limits.test_fairness` prints the figures.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from rheostat_server.limits.fair_queue import FairQueue
from rheostat_server.limits.refusals import QueueFull, QueueTimeout
from tests.limits.simulated import now, run_simulated

SLOTS, SERVICE, FLOODERS, EACH = 4, 0.02, 19, 10
"""Requests at once, the mean seconds of one (half to one and a half), those that flood, and what each has open."""
PAUSE = 1.5 * SERVICE * (FLOODERS + 1) / SLOTS
"""The light caller asks at two thirds of an even share."""
SECONDS = 120.0
LONGEST = 0.6
"""Seconds of the longest request of those that come at random."""

Turn = Callable[[str], AbstractAsyncContextManager[Any]]


def fair() -> Turn:
    return FairQueue(running=SLOTS, waiting=10_000, deadline=60, clock=now).turn


def fifo() -> Turn:
    slots = asyncio.Semaphore(SLOTS)

    @asynccontextmanager
    async def turn(caller: str) -> Any:
        async with slots:
            yield

    return turn


async def waits(make: Callable[[], Turn], flooders: int) -> list[float]:
    """The light caller's waits in seconds, shortest first."""
    turn, found, chance = make(), list[float](), random.Random(7)

    def around(seconds: float) -> float:
        return seconds * chance.uniform(0.5, 1.5)

    async def flood(caller: str) -> None:
        while True:
            async with turn(caller):
                await asyncio.sleep(around(SERVICE))

    floods = [asyncio.ensure_future(flood(f"flooder {i % flooders}")) for i in range(flooders * EACH)]
    while now() < SECONDS:
        await asyncio.sleep(around(PAUSE))
        asked = now()
        async with turn("light"):
            found.append(now() - asked)
            await asyncio.sleep(around(SERVICE))
    for task in floods:
        task.cancel()
    await asyncio.wait(floods)
    return sorted(found)


def figures(make: Callable[[], Turn]) -> tuple[float, float, float]:
    """Median, 99th percentile and longest wait, in seconds."""
    found = run_simulated(waits(make, FLOODERS))
    return found[len(found) // 2], found[int(len(found) * 0.99)], found[-1]


def test_a_light_caller_waits_no_longer_than_until_a_running_request_ends() -> None:
    assert figures(fair)[2] <= 1.5 * SERVICE


def test_first_come_first_served_would_let_it_wait_for_all_of_the_flood() -> None:
    assert figures(fifo)[1] >= 0.9 * SERVICE * FLOODERS * EACH / SLOTS


async def at_random(*, running: int, reserved: int, faster: float = 1.0) -> tuple[list[float], float]:
    """A caller at half its share, where requests come at random, twice as many as can be run.

    An urgent one runs `faster`. Returns the caller's waits in seconds, and how many of the others' turns were urgent.
    """
    queue = FairQueue(running=running, waiting=64, deadline=10, reserved=reserved, clock=now, urgent_first=faster > 1)
    chance, found, others = random.Random(1), list[float](), list[bool]()

    async def one(caller: str) -> None:
        asked = now()
        with suppress(QueueFull, QueueTimeout):
            async with queue.turn(caller) as turn:
                if caller == "light":
                    found.append(now() - asked)
                else:
                    others.append(turn.urgent)
                await asyncio.sleep(chance.uniform(0.1, LONGEST) / (faster if turn.urgent else 1))

    asking = []
    while now() < 1800:
        light = chance.random() < 1 / (4 * (FLOODERS + 1))
        asking.append(asyncio.ensure_future(one("light" if light else f"flooder {chance.randrange(FLOODERS)}")))
        await asyncio.sleep(chance.expovariate(2 * (running - reserved) / 0.35))
    await asyncio.gather(*asking)
    return sorted(found), sum(others) / len(others)


def test_a_caller_at_half_its_share_whose_requests_come_at_random_waits_for_one_request_at_most() -> None:
    found, _ = run_simulated(at_random(running=4, reserved=2))
    assert len(found) > 150
    assert found[int(len(found) * 0.99)] < LONGEST


def test_where_urgent_requests_run_faster_it_hardly_waits_and_those_that_flood_are_not_taken_for_light_ones() -> None:
    found, urgent = run_simulated(at_random(running=8, reserved=2, faster=8))
    assert len(found) > 150
    assert found[int(len(found) * 0.99)] < 0.1 * LONGEST
    assert urgent < 0.05


if __name__ == "__main__":
    for name, make in {"fair": fair, "first come first served": fifo}.items():
        median, high, longest = figures(make)
        print(f"{name}: median {median:.4f} s, p99 {high:.4f} s, longest {longest:.4f} s")
