"""Redis gone, stalled, restarted or not to be read: a request is refused or admitted, as the operator chose, soon."""

import asyncio
import time
from contextlib import suppress

import pytest
import structlog

from rheostat_server.errors import CannotStart
from rheostat_server.limits.rate_limits import RateLimits
from rheostat_server.limits.rates import Rates
from rheostat_server.limits.refusals import LimitsUnavailable, TooManyRequests
from rheostat_server.limits.shared import PREFIX
from tests.limits.conftest import Opened
from tests.limits.metrics import value
from tests.limits.redis_server import PASSWORD, RedisServer

RATES = Rates(requests_per_minute=5, tokens_per_minute=100, candidates_per_minute=50, parallel=2)


async def ask(limits: RateLimits) -> dict[str, str]:
    async with limits.request("a", RATES, candidates=1) as quota:
        return quota.headers()


async def test_a_redis_that_is_killed_refuses_and_once_restarted_admits(
    redis_server: RedisServer, opened: Opened
) -> None:
    limits = opened(redis_server.uri)
    await ask(limits)
    redis_server.kill()
    for _ in range(3):
        with pytest.raises(LimitsUnavailable) as caught:
            await ask(limits)
    assert (caught.value.status, caught.value.code) == (503, "limits_unavailable")
    assert caught.value.headers == {"Retry-After": "1"}
    redis_server.start()
    assert (await ask(limits))["x-ratelimit-remaining-requests"] == "4"


async def test_a_place_may_be_given_back_as_slowly_as_redis_may_answer(
    redis_server: RedisServer, opened: Opened
) -> None:
    limits, before = opened(redis_server.uri), value("rheostat_limits_failures_total")
    async with limits.request("a", RATES, candidates=1):
        ended = asyncio.Event()

        async def stay() -> None:
            async with limits.request("a", RATES, candidates=1):
                await ended.wait()

        staying = asyncio.ensure_future(stay())
        while redis_server.client.zcard(f"{PREFIX}:parallel/a") < 2:
            await asyncio.sleep(0.01)
        with redis_server.stalled():
            ended.set()
            await asyncio.sleep(0.8)
            assert not staying.done()
        await staying
        assert redis_server.client.zcard(f"{PREFIX}:parallel/a") == 1
    assert value("rheostat_limits_failures_total") == before


async def test_open_requests_outlive_a_restart_and_keep_their_places(redis_server: RedisServer, opened: Opened) -> None:
    limits = opened(redis_server.uri)
    async with limits.request("a", RATES, candidates=1):
        redis_server.kill()
        await limits.spend("a", RATES, tokens=7)
        redis_server.start()
        assert (await ask(limits))["x-ratelimit-remaining-tokens"] == "100"


async def test_where_limits_fail_open_requests_are_admitted_counted_and_logged_once(
    redis_server: RedisServer, opened: Opened
) -> None:
    limits = opened(redis_server.uri, fail_open=True)
    await ask(limits)
    redis_server.kill()
    before = value("rheostat_limits_failures_total")
    with structlog.testing.capture_logs() as logs:
        assert [await ask(limits) for _ in range(20)] == [{}] * 20
        assert value("rheostat_limits_failures_total") == before + 20
        redis_server.start()
        await ask(limits)
    assert [line["event"] for line in logs] == ["rate limits: Redis fails", "rate limits: Redis answers again"]
    assert PASSWORD not in repr(logs)
    assert PASSWORD not in repr(limits)


@pytest.mark.parametrize("fail_open", [True, False])
async def test_a_redis_that_stalls_keeps_nobody_waiting(
    redis_server: RedisServer, opened: Opened, fail_open: bool
) -> None:
    limits = opened(redis_server.uri, fail_open=fail_open, deadline=0.5)
    await ask(limits)
    with redis_server.stalled():
        began = time.monotonic()
        first = await asyncio.gather(*(ask(limits) for _ in range(50)), return_exceptions=True)
        later = await asyncio.gather(*(ask(limits) for _ in range(50)), return_exceptions=True)
        await limits.spend("a", RATES, tokens=5)
        assert time.monotonic() - began < 4
    assert all((one == {}) if fail_open else isinstance(one, LimitsUnavailable) for one in first + later)
    await until_answered(limits)


async def until_answered(limits: RateLimits) -> None:
    """That all is used up is an answer too: what the stall held up is counted once it is over."""
    async with asyncio.timeout(30):
        while True:
            with suppress(LimitsUnavailable):
                try:
                    told = await ask(limits)
                except TooManyRequests:
                    return
                if told:
                    return
            await asyncio.sleep(0.05)


async def test_once_redis_failed_only_one_caller_waits_for_it(redis_server: RedisServer, opened: Opened) -> None:
    limits = opened(redis_server.uri, deadline=0.5)
    await ask(limits)
    with redis_server.stalled():
        with pytest.raises(LimitsUnavailable):
            await ask(limits)
        trying = asyncio.ensure_future(ask(limits))
        await asyncio.sleep(0.01)
        for _ in range(10):
            with pytest.raises(LimitsUnavailable):
                await ask(limits)
        assert not trying.done()
        await asyncio.wait({trying})
        assert isinstance(trying.exception(), LimitsUnavailable)


async def test_a_wrong_password_is_an_outage_that_tells_no_password(redis_server: RedisServer, opened: Opened) -> None:
    limits = opened(redis_server.uri.replace(PASSWORD, "wrong-powder"))
    with structlog.testing.capture_logs() as logs, pytest.raises(LimitsUnavailable) as caught:
        await ask(limits)
    assert [line["cause"] for line in logs] == ["AuthenticationError"]
    assert "wrong-powder" not in repr(logs) + str(caught.value)


@pytest.mark.parametrize(
    "uri", ["memcached://:vorn-powder@host", "redis://:vorn/powder@host:6379/0", "redis://:vorn-powder@host:port/0", ""]
)
def test_an_address_that_cannot_be_read_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(CannotStart, match="redis://:password@host:6379/0") as caught:
        RateLimits.over(uri)
    assert "vorn" not in str(caught.value)
    assert caught.value.__cause__ is None
