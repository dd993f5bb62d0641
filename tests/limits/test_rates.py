"""A caller gets exactly what its rates allow, in memory and in Redis, and is told what is left."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from rheostat_server.errors import NoBlendFree
from rheostat_server.limits.rate_limits import RateLimits
from rheostat_server.limits.rates import Rates
from rheostat_server.limits.refusals import QueueFull, QueueTimeout, TooManyRequests
from tests.limits.metrics import value

CALLER = "kids-app"


async def ask(limits: RateLimits, rates: Rates, *, candidates: int = 1, caller: str = CALLER) -> dict[str, str]:
    async with limits.request(caller, rates, candidates=candidates) as quota:
        return quota.headers()


async def refused(limits: RateLimits, rates: Rates, *, candidates: int = 1) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as caught:
        await ask(limits, rates, candidates=candidates)
    assert caught.value.headers is not None
    return caught.value


async def test_as_many_requests_as_the_limit_are_admitted_and_the_next_is_told_why_not(limits: RateLimits) -> None:
    rates = Rates(requests_per_minute=3)
    remaining = [(await ask(limits, rates))["x-ratelimit-remaining-requests"] for _ in range(3)]
    assert remaining == ["2", "1", "0"]
    before = value("rheostat_rate_limited_total", limit="requests")
    refusal = await refused(limits, rates)
    assert (refusal.status, refusal.type, refusal.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert "3 requests a minute and used 3 in the last one; the request needs 1" in refusal.message
    assert refusal.headers is not None
    assert 58 <= int(refusal.headers["Retry-After"]) <= 60
    assert refusal.headers["x-ratelimit-remaining-requests"] == "0"
    assert value("rheostat_rate_limited_total", limit="requests") == before + 1


async def test_a_caller_without_limits_has_no_headers_and_needs_no_storage(limits: RateLimits) -> None:
    await limits.close()
    assert await ask(limits, Rates()) == {}
    await limits.spend(CALLER, Rates(), tokens=10**9)


async def test_headers_name_each_limit_that_the_caller_has(limits: RateLimits) -> None:
    headers = await ask(
        limits, Rates(requests_per_minute=5, tokens_per_minute=100, candidates_per_minute=20), candidates=8
    )
    resets = {name: headers.pop(f"x-ratelimit-reset-{name}") for name in ("requests", "tokens", "candidates")}
    assert headers == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-limit-candidates": "20",
        "x-ratelimit-remaining-candidates": "12",
    }
    assert resets["tokens"] == "0s"
    assert {resets["requests"], resets["candidates"]} == {"60s"}


async def test_a_request_refused_for_its_candidates_does_not_use_up_a_request(limits: RateLimits) -> None:
    rates = Rates(requests_per_minute=2, candidates_per_minute=16)
    await ask(limits, rates, candidates=10)
    for _ in range(5):
        assert "16 candidates a minute and used 10" in (await refused(limits, rates, candidates=8)).message
    assert (await ask(limits, rates, candidates=6))["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    "refusal", [QueueFull(waiting=8, own=2), QueueTimeout(deadline=1), NoBlendFree(room=1, seconds=1)]
)
async def test_a_request_for_which_there_is_no_place_uses_nothing_up(limits: RateLimits, refusal: Exception) -> None:
    rates = Rates(requests_per_minute=5, candidates_per_minute=50)
    await ask(limits, rates, candidates=4)
    for _ in range(10):
        with pytest.raises(type(refusal)):
            async with limits.request(CALLER, rates, candidates=8):
                raise refusal
    headers = await ask(limits, rates, candidates=3)
    assert headers["x-ratelimit-remaining-requests"] == "3"
    assert headers["x-ratelimit-remaining-candidates"] == "43"


async def test_of_those_who_take_at_once_the_refused_use_nothing_up(limits: RateLimits) -> None:
    rates = Rates(requests_per_minute=100, candidates_per_minute=30)
    answers = await asyncio.gather(*(ask(limits, rates, candidates=10) for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 3
    left = (await refused(limits, rates)).headers
    assert left is not None
    assert left["x-ratelimit-remaining-requests"] == "97"


async def test_a_request_for_more_candidates_than_the_limit_is_told_that_it_never_fits(limits: RateLimits) -> None:
    refusal = await refused(limits, Rates(candidates_per_minute=8), candidates=9)
    assert "ask for 8 at most" in refusal.message


async def test_tokens_are_counted_after_the_work_and_one_request_may_overshoot(limits: RateLimits) -> None:
    rates = Rates(tokens_per_minute=100)
    await limits.spend(CALLER, rates, tokens=99)
    assert (await ask(limits, rates))["x-ratelimit-remaining-tokens"] == "1"
    await limits.spend(CALLER, rates, tokens=5000)
    refusal = await refused(limits, rates)
    assert "100 tokens a minute and used 5099" in refusal.message
    assert refusal.headers is not None
    assert refusal.headers["x-ratelimit-remaining-tokens"] == "0"
    assert 58 <= int(refusal.headers["Retry-After"]) <= 120
    await ask(limits, rates, caller="another")


async def test_tokens_spent_by_a_request_that_is_cancelled_are_counted(limits: RateLimits) -> None:
    rates = Rates(tokens_per_minute=10)
    spending = asyncio.ensure_future(limits.spend(CALLER, rates, tokens=10))
    await asyncio.sleep(0)
    spending.cancel()
    await asyncio.wait({spending})
    await asyncio.sleep(0.1)
    await refused(limits, rates)


async def test_only_so_many_requests_are_open_at_once(limits: RateLimits) -> None:
    rates = Rates(parallel=2, requests_per_minute=3)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(limits.request(CALLER, rates, candidates=1))
        refusal = await refused(limits, rates)
        assert "2 requests open at once" in refusal.message
        assert refusal.headers is not None
        assert refusal.headers["Retry-After"] == "1"
        assert refusal.headers["x-ratelimit-remaining-requests"] == "1"
    await ask(limits, rates)


async def test_an_open_request_that_fails_or_is_cancelled_frees_its_place(limits: RateLimits) -> None:
    rates = Rates(parallel=1)
    with pytest.raises(ZeroDivisionError):
        async with limits.request(CALLER, rates, candidates=1):
            raise ZeroDivisionError
    opened = asyncio.Event()

    async def stay() -> None:
        async with limits.request(CALLER, rates, candidates=1):
            opened.set()
            await asyncio.sleep(60)

    staying = asyncio.ensure_future(stay())
    await opened.wait()
    await refused(limits, rates)
    staying.cancel()
    await asyncio.wait({staying})
    await asyncio.sleep(0.1)
    await ask(limits, rates)


async def test_a_hundred_at_once_get_exactly_the_limit(limits: RateLimits) -> None:
    rates = Rates(requests_per_minute=40, candidates_per_minute=1000)
    answers = await asyncio.gather(*(ask(limits, rates) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 40
    assert sum(isinstance(answer, TooManyRequests) for answer in answers) == 60


@pytest.mark.parametrize("field", ["requests_per_minute", "tokens_per_minute", "candidates_per_minute", "parallel"])
def test_a_limit_below_one_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 0; it must be at least 1"):
        Rates(**{field: 0})
