"""Rows come and go; prompts wait for their turn; an engine that died says so."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import torch

from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.engines.embedded.batch import fair_shares
from rheostat_server.engines.embedded.cache import PromptCache, SlotCache
from rheostat_server.errors import EngineUnavailable
from tests.engines.embedded.asking import LONG, chunks_of, events_of, request, settled, streamed_text, text_of

ENDLESS: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True}


async def begun(engine: EmbeddedEngine, count: int) -> None:
    async with asyncio.timeout(20):
        while engine.running < count:
            await asyncio.sleep(0.001)


async def test_cancelling_an_answer_frees_its_candidates(engine: EmbeddedEngine) -> None:
    task = asyncio.create_task(engine.complete(request(n=4, **ENDLESS)))
    await begun(engine, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(engine)


async def test_closing_a_stream_frees_its_candidates(engine: EmbeddedEngine) -> None:
    stream = engine.stream(request(n=4, stream=True, **ENDLESS))
    await anext(stream)
    assert engine.running == 1
    await stream.aclose()
    await settled(engine)


async def test_requests_beyond_the_rows_wait_and_are_answered_in_their_order(own_engine: EmbeddedEngine) -> None:
    order: list[int] = []

    async def ask(number: int) -> None:
        await own_engine.complete(request(n=3, max_tokens=20, ignore_eos=True))
        order.append(number)

    tasks = [asyncio.create_task(ask(number)) for number in range(4)]
    await begun(own_engine, 1)
    assert (own_engine.running, own_engine.waiting) == (1, 3)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]
    assert (own_engine.running, own_engine.waiting) == (0, 0)


async def test_while_an_urgent_request_runs_the_others_stand_still_and_then_go_on(own_engine: EmbeddedEngine) -> None:
    alone = await text_of(own_engine, LONG, temperature=0, **ENDLESS)
    parts, times = list[bytes](), list[float]()
    clock = asyncio.get_running_loop().time

    async def long() -> None:
        async for part in own_engine.stream(request(LONG, stream=True, temperature=0, **ENDLESS)):
            parts.append(part)
            times.append(clock())

    task = asyncio.create_task(long())
    await begun(own_engine, 1)
    began = clock()
    urgent = await own_engine.complete(replace(request(max_tokens=100, ignore_eos=True), urgent=True))
    ended = clock()
    assert urgent["usage"]["completion_tokens"] == 100
    assert not task.done()
    assert sum(began <= at <= ended for at in times) < 20, "it may have gone on until the worker saw the urgent one"
    await task
    assert streamed_text(events_of(b"".join(parts))) == alone
    assert (own_engine.running, own_engine.waiting) == (0, 0)


async def test_an_urgent_request_finds_a_place_in_a_full_batch_and_can_be_cancelled(own_engine: EmbeddedEngine) -> None:
    full = asyncio.create_task(own_engine.complete(request(n=4, **ENDLESS)))
    await begun(own_engine, 1)
    urgent = asyncio.create_task(own_engine.complete(replace(request(n=4, **ENDLESS), urgent=True)))
    await begun(own_engine, 2)
    assert own_engine.waiting == 0
    urgent.cancel()
    with pytest.raises(asyncio.CancelledError):
        await urgent
    await full
    await settled(own_engine)


async def test_a_request_that_waits_can_be_cancelled(own_engine: EmbeddedEngine) -> None:
    first = asyncio.create_task(own_engine.complete(request(n=4, **ENDLESS)))
    await begun(own_engine, 1)
    second = asyncio.create_task(own_engine.complete(request()))
    await asyncio.sleep(0.02)
    second.cancel()
    await first
    await settled(own_engine)


async def test_a_short_request_does_not_wait_for_a_long_answer(engine: EmbeddedEngine) -> None:
    long = asyncio.create_task(engine.complete(request(LONG, **ENDLESS | {"max_tokens": 300})))
    await begun(engine, 1)
    await text_of(engine, max_tokens=3)
    assert not long.done()
    await long


async def test_the_event_loop_stays_free_while_the_model_runs(engine: EmbeddedEngine) -> None:
    turns = 0
    task = asyncio.create_task(engine.complete(request(n=8, **ENDLESS | {"max_tokens": 100})))
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 100


async def test_a_killed_engine_fails_what_runs_and_says_why(
    own_engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("the model fell over")

    await own_engine.check_ready()
    running = [
        asyncio.create_task(own_engine.complete(request(**ENDLESS))),
        asyncio.create_task(own_engine.complete(request(n=4, **ENDLESS))),
        asyncio.create_task(chunks_of(own_engine, **ENDLESS)),
    ]
    await begun(own_engine, 1)
    monkeypatch.setattr("rheostat_server.engines.embedded.model.Model.logits", broken)
    for result in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(result, EngineUnavailable)
        assert "has died of RuntimeError" in result.message
    for call in (own_engine.check_ready(), own_engine.complete(request()), anext(own_engine.stream(request()))):
        with pytest.raises(EngineUnavailable, match="has died of RuntimeError"):
            await call
    assert (own_engine.running, own_engine.waiting) == (0, 0)


async def test_a_closed_engine_is_unavailable_and_can_be_closed_again(own_engine: EmbeddedEngine) -> None:
    running = asyncio.create_task(own_engine.complete(request(**ENDLESS)))
    await begun(own_engine, 1)
    await own_engine.close()
    await own_engine.close()
    with pytest.raises(EngineUnavailable, match="closed"):
        await running
    with pytest.raises(EngineUnavailable, match="closed"):
        await own_engine.check_ready()


@pytest.mark.parametrize(
    ("wants", "budget", "shares"),
    [
        ([], 10, []),
        ([3, 4], 10, [3, 4]),
        ([100, 2, 100], 10, [4, 2, 4]),
        ([100, 100, 100], 10, [4, 3, 3]),
        ([5, 5, 5], 2, [1, 1, 0]),
    ],
    ids=str,
)
def test_a_long_prompt_leaves_short_ones_their_share(wants: list[int], budget: int, shares: list[int]) -> None:
    assert fair_shares(wants, budget) == shares


def test_slots_keep_what_they_hold_when_they_grow_and_move() -> None:
    prompt = PromptCache(3)
    key = torch.arange(12.0).view(2, 3, 2)
    prompt.write(0, 0, key, -key)
    slots = SlotCache()
    slots.reserve(1, 3)
    slots.adopt(prompt, range(1))
    slots.reserve(20, 500)
    slots.move(0, 19, 3)
    keys, values = slots.layers[0]
    assert keys.shape[0] >= 20
    assert keys.shape[2] >= 500
    torch.testing.assert_close(keys[19, :, :3], key)
    torch.testing.assert_close(values[19, :, :3], -key)
    assert bool((keys[1:19] == 0).all()), "what is masked must be finite"
