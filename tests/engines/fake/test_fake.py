"""The fake engine does as it is told, and keeps what it was asked."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from rheostat_server.engines import DONE, EngineRequest
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.errors import EngineFailed, EngineUnavailable


def request(**fields: Any) -> EngineRequest:
    return EngineRequest({"model": "fake", "messages": [{"role": "user", "content": "Hello"}], **fields}, "r1")


async def test_it_keeps_what_it_was_asked() -> None:
    engine = FakeEngine()
    asked = request(temperature=0)
    await engine.complete(asked)
    assert engine.asked == [asked]
    assert engine.running == 0


async def test_two_engines_answer_alike() -> None:
    assert await FakeEngine().complete(request()) == await FakeEngine().complete(request())


@pytest.mark.parametrize("events", [0, 1, 3])
async def test_a_stream_fails_where_it_was_told_to(events: int) -> None:
    engine = FakeEngine(orders=Orders(fail_after=events))
    stream = engine.stream(request())
    for _ in range(events):
        await anext(stream)
    with pytest.raises(EngineFailed):
        await anext(stream)
    assert engine.running == 0


async def test_a_whole_answer_fails_where_it_was_told_to() -> None:
    with pytest.raises(EngineFailed):
        await FakeEngine(orders=Orders(fail_after=0)).complete(request())


async def test_a_slow_engine_takes_its_time_and_is_freed_when_cancelled() -> None:
    engine = FakeEngine(orders=Orders(seconds_per_token=60))
    asking = asyncio.ensure_future(engine.complete(request()))
    await asyncio.sleep(0.01)
    assert engine.running == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert engine.running == 0


async def test_a_stream_that_is_closed_is_freed() -> None:
    engine = FakeEngine()
    async with aclosing(engine.stream(request())) as events:
        await anext(events)
        assert engine.running == 1
    assert engine.running == 0


async def test_an_engine_that_dies_takes_its_requests_with_it() -> None:
    engine = FakeEngine()
    events = engine.stream(request())
    await anext(events)
    engine.dead = True
    with pytest.raises(EngineUnavailable):
        await anext(events)
    with pytest.raises(EngineUnavailable):
        await engine.complete(request())


async def test_a_stream_ends_with_done() -> None:
    assert [event async for event in FakeEngine().stream(request())][-1] == DONE
