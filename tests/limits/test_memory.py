"""In memory limits go by a clock of their own, exactly, and keep no book of callers that are gone."""

import asyncio
import time
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.limits.memory import MemoryLeases, MemoryWindows
from rheostat_server.limits.quota import Used
from rheostat_server.limits.rate_limits import RateLimits
from rheostat_server.limits.rates import Rates
from rheostat_server.limits.refusals import TooManyRequests


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 6)), max_size=60))
def test_no_minute_holds_more_than_the_limit_and_no_room_is_wasted(steps: list[tuple[float, int]]) -> None:
    clock, limit = Clock(), 10
    windows = MemoryWindows(clock)
    taken: deque[tuple[float, int]] = deque()
    for pause, amount in steps:
        clock.now += pause
        while taken and taken[0][0] <= clock.now - 60:
            taken.popleft()
        fits = sum(one for _, one in taken) + amount <= limit
        assert (asyncio.run(windows.take("requests", "a", limit, amount)) is not None) == fits
        if fits:
            taken.append((clock.now, amount))


async def test_what_is_used_over_the_limit_frees_when_enough_of_it_is_a_minute_old() -> None:
    clock = Clock()
    windows = MemoryWindows(clock)
    for amount in (5, 200, 3):
        await windows.add_tokens("a", amount)
        clock.now += 10
    assert await windows.used("tokens", "a", 100) == Used(208, 40.0)
    clock.now += 40
    assert await windows.used("tokens", "a", 100) == Used(3, 10.0)


async def test_what_is_given_back_is_what_was_taken_and_no_other() -> None:
    clock = Clock()
    windows = MemoryWindows(clock)
    taken = []
    for amount in (2, 3, 2):
        taken.append(await windows.take("requests", "a", 10, amount))
        clock.now += 10
    assert taken[0] is not None
    for _ in range(2):
        await windows.give_back(taken[0])
        assert await windows.used("requests", "a", 10) == Used(5, 40.0)
    clock.now += 60
    await windows.give_back(taken[0])
    assert await windows.used("requests", "a", 10) == Used()


async def test_ten_thousand_callers_are_forgotten_once_a_minute_is_over() -> None:
    clock = Clock()
    windows = MemoryWindows(clock)
    for caller in range(10_000):
        await windows.take("requests", str(caller), 5, 1)
        clock.now += 0.001
    assert len(windows) == 10_000
    clock.now += 60
    await windows.take("requests", "last", 5, 1)
    assert len(windows) == 1


async def test_places_of_requests_that_ended_are_forgotten() -> None:
    leases = MemoryLeases()
    async with leases.held("a", 1) as first, leases.held("a", 1) as second, leases.held("b", 1) as third:
        assert (first, second, third, len(leases)) == (True, False, True, 2)
    assert len(leases) == 0


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
async def test_a_wall_clock_that_jumps_an_hour_changes_nothing(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    limits, rates = RateLimits.over(None), Rates(requests_per_minute=2, tokens_per_minute=10)
    async with limits.request("a", rates, candidates=1):
        pass
    await limits.spend("a", rates, tokens=3)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + jump)
    async with limits.request("a", rates, candidates=1) as quota:
        assert quota.headers()["x-ratelimit-remaining-requests"] == "0"
        assert quota.headers()["x-ratelimit-remaining-tokens"] == "7"
    with pytest.raises(TooManyRequests) as caught:
        async with limits.request("a", rates, candidates=1):
            pass
    assert caught.value.headers is not None
    assert int(caught.value.headers["Retry-After"]) <= 60
