"""Events pass through unread, however they are cut, and the receipt comes before the last one."""

import json
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.engines import DONE, EngineRequest
from rheostat_server.errors import EngineFailed
from rheostat_server.sse import event, receipt_before_done
from tests.server.recording import RecordingEngine

FIRST = {"id": "chatcmpl-9", "created": 4, "model": "demo", "choices": [{"delta": {"content": "data: [DONE]\n\n"}}]}
EVENTS = event(FIRST) + event({"choices": [{"delta": {"content": "data: ["}}]})


async def collect(chunks: list[bytes]) -> list[bytes]:
    async def rest() -> AsyncGenerator[bytes, None]:
        for chunk in chunks[1:]:
            yield chunk

    return [part async for part in receipt_before_done(chunks[0], rest(), lambda: {"mode": "prompt"})]


def cut(data: bytes, borders: list[int]) -> list[bytes]:
    edges = [0, *sorted(border % len(data) for border in borders), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


@given(
    st.lists(st.integers(0, 10_000), max_size=30), st.sampled_from([DONE, b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n"])
)
async def test_bytes_pass_however_they_are_cut(borders: list[int], done: bytes) -> None:
    if done != DONE:
        borders = [border for border in borders if border % len(EVENTS + done) <= len(EVENTS)]
    passed = b"".join(await collect(cut(EVENTS + done, borders)))
    assert passed.startswith(EVENTS)
    assert passed.endswith(DONE)
    receipt = json.loads(passed.removeprefix(EVENTS).removesuffix(DONE).removeprefix(b"data: "))
    assert receipt == {
        "object": "chat.completion.chunk", "id": "chatcmpl-9", "created": 4, "model": "demo", "choices": [],
        "control": {"mode": "prompt"},
    }  # fmt: skip


async def test_a_whole_event_is_never_held_back() -> None:
    seen: list[bytes] = []

    async def rest() -> AsyncGenerator[bytes, None]:
        assert seen == [event(FIRST)]
        yield DONE

    async for part in receipt_before_done(event(FIRST), rest(), dict):
        seen.append(part)  # noqa: PERF401


async def test_a_stream_cut_short_is_a_failure_and_no_answer() -> None:
    with pytest.raises(EngineFailed, match="without its last event"):
        await collect([EVENTS])


async def test_a_stream_without_any_event_is_a_failure_and_no_answer(
    http: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(request: EngineRequest) -> AsyncGenerator[bytes, None]:
        for chunk in list[bytes]():
            yield chunk

    monkeypatch.setattr(engine, "stream", nothing)
    body = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "stream": True}
    response = await http.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "engine_failed")


async def test_a_comment_that_comes_first_does_not_hide_the_identity() -> None:
    passed = await collect([b": keep-alive\n\n", event(FIRST), DONE])
    assert json.loads(passed[-2].removeprefix(b"data: "))["id"] == "chatcmpl-9"


async def test_a_first_event_that_cannot_be_read_costs_only_the_identity() -> None:
    passed = await collect([b"data: what\n\n", DONE])
    last: dict[str, Any] = json.loads(passed[-2].removeprefix(b"data: "))
    assert last == {"object": "chat.completion.chunk", "choices": [], "control": {"mode": "prompt"}}
