"""Workers that share a Redis share the limits, and one that is killed gives its places back."""

import asyncio
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from rheostat_server.limits.rates import Rates
from rheostat_server.limits.refusals import TooManyRequests
from rheostat_server.limits.shared import PREFIX, SharedLeases
from tests.limits.conftest import Opened
from tests.limits.redis_server import RedisServer
from tests.limits.worker import LEASE, RATES, leases_over
from tools.processes import Process, started

WORKER = [sys.executable, "-m", "tests.limits.worker"]


def wait_until(process: Process, log: Path, told: str) -> None:
    until = time.monotonic() + 60
    while told not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def test_two_workers_together_admit_exactly_the_limit(redis_server: RedisServer, tmp_path: Path) -> None:
    environment = {"WORKER_REDIS": redis_server.uri}
    logs = [tmp_path / "one", tmp_path / "two"]
    with ExitStack() as stack:
        workers = [stack.enter_context(started(WORKER, log=log, environment=environment)) for log in logs]
        assert [worker.wait(60) for worker in workers] == [0, 0], [log.read_text() for log in logs]
    assert sum(int(log.read_text()) for log in logs) == RATES.requests_per_minute


async def test_places_of_a_killed_worker_lapse_and_those_of_a_living_one_do_not(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    log, environment = tmp_path / "worker", {"WORKER_REDIS": redis_server.uri}
    async with leases_over(redis_server.uri) as leases, leases.held("a", 2) as ours:
        with started([*WORKER, "hold"], log=log, environment=environment) as worker:
            await asyncio.to_thread(wait_until, worker, log, "held")
            assert [ours, await has_room(leases)] == [True, False]
            worker.kill()
            await asyncio.to_thread(worker.wait)
        assert not await has_room(leases)
        await asyncio.sleep(LEASE * 1.5)
        async with leases.held("a", 2) as second:
            assert [second, await has_room(leases)] == [True, False]
    assert redis_server.client.zcard(f"{PREFIX}:parallel/a") == 0


async def has_room(leases: SharedLeases) -> bool:
    async with leases.held("a", 2) as room:
        return room


async def test_a_lease_of_before_the_clock_of_redis_was_set_back_takes_nobodys_place(
    redis_server: RedisServer, opened: Opened
) -> None:
    key, limits, rates = f"{PREFIX}:parallel/a", opened(redis_server.uri), Rates(parallel=1)
    redis_server.client.zadd(key, {"old": (time.time() + 3600) * 1000})
    async with limits.request("a", rates, candidates=1):
        assert redis_server.client.zcard(key) == 1


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
async def test_a_worker_whose_clock_jumps_refuses_for_a_minute_at_most(
    redis_server: RedisServer, opened: Opened, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    limits, rates = opened(redis_server.uri), Rates(requests_per_minute=1, tokens_per_minute=10)
    async with limits.request("a", rates, candidates=1):
        await limits.spend("a", rates, tokens=4)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + jump)
    keys = list(redis_server.client.scan_iter(f"{PREFIX}:requests/*"))
    assert [0 < redis_server.client.ttl(key) <= 60 for key in keys] == [True]
    if jump > 0:
        async with limits.request("a", rates, candidates=1) as quota:
            assert quota.headers()["x-ratelimit-remaining-tokens"] == "6"
        return
    with pytest.raises(TooManyRequests) as caught:
        async with limits.request("a", rates, candidates=1):
            pass
    assert caught.value.headers is not None
    assert int(caught.value.headers["Retry-After"]) <= 60


async def test_spent_tokens_fade_over_the_minute_after_theirs(redis_server: RedisServer, opened: Opened) -> None:
    limits, rates = opened(redis_server.uri), Rates(tokens_per_minute=100)
    await limits.spend("a", rates, tokens=200)
    (key,) = redis_server.client.scan_iter(f"{PREFIX}:*tokens*")
    redis_server.client.pexpire(key, 31_000)  # 29 s of the second minute are over
    with pytest.raises(TooManyRequests, match="used 103") as caught:
        async with limits.request("a", rates, candidates=1):
            pass
    assert caught.value.headers is not None
    assert caught.value.headers["Retry-After"] == "1"
    for fading in redis_server.client.scan_iter(f"{PREFIX}:*tokens*/-1"):
        redis_server.client.pexpire(fading, 29_000)
    async with limits.request("a", rates, candidates=1) as quota:
        assert quota.headers()["x-ratelimit-remaining-tokens"] == "4"
