"""Candidates of the embedded engine: one prompt read, a stream each, and each freed alone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from rheostat_server.engines import DONE, EngineRequest, Occupancy
from rheostat_server.engines.embedded import EmbeddedEngine

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "What shall I plant?"}], "max_tokens": 12, "seed": 5}


def request_to(engine: EmbeddedEngine, **extra: Any) -> EngineRequest:
    return EngineRequest({"model": engine.models()[0], **BODY, **extra}, "r")


async def text_of(stream: AsyncGenerator[bytes, None]) -> tuple[str, int]:
    """The stream's text, and its last count of tokens."""
    text, tokens, last = "", 0, b""
    async for chunk in stream:
        last = chunk
        for event in chunk.removesuffix(DONE).split(b"\n\n"):
            if event:
                told = orjson.loads(event.removeprefix(b"data: "))
                text += "".join(choice["delta"].get("content") or "" for choice in told["choices"])
                tokens = (told.get("usage") or {}).get("completion_tokens", tokens)
    assert last.endswith(DONE)
    return text, tokens


async def test_streams_are_the_choices_of_one_answer_with_n(engine: EmbeddedEngine) -> None:
    whole = await engine.complete(request_to(engine, n=4))
    async with engine.fan_out(request_to(engine), 4) as streams:
        found = await asyncio.gather(*map(text_of, streams))
    assert [text for text, _ in found] == [choice["message"]["content"] for choice in whole["choices"]]
    assert sum(tokens for _, tokens in found) == whole["usage"]["completion_tokens"]


async def test_a_stream_that_is_closed_frees_its_answer_alone(engine: EmbeddedEngine) -> None:
    async with engine.fan_out(request_to(engine, max_tokens=200, ignore_eos=True), 3) as streams:
        first, *rest = streams
        async with aclosing(first):
            await anext(first)
            await anext(first)
        while (await engine.occupancy()).running == 3:
            await asyncio.sleep(0.01)
        assert (await engine.occupancy()).running == 2
        for stream in rest:
            await anext(stream)
            await stream.aclose()
    while (await engine.occupancy()).running:
        await asyncio.sleep(0.01)


async def test_leaving_frees_what_was_never_read(engine: EmbeddedEngine) -> None:
    async with engine.fan_out(request_to(engine, max_tokens=200, ignore_eos=True), 3):
        pass
    while (await engine.occupancy()).running or engine.waiting:
        await asyncio.sleep(0.01)


async def test_requests_that_come_together_do_not_find_each_other_waiting(engine: EmbeddedEngine) -> None:
    async with engine.fan_out(request_to(engine, max_tokens=200, ignore_eos=True), 3):
        assert await engine.occupancy() == Occupancy(running=3, waiting=0, room=16)
        async with engine.fan_out(request_to(engine, max_tokens=200, ignore_eos=True), 14):
            assert await engine.occupancy() == Occupancy(running=16, waiting=1, room=16)
