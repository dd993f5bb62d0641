"""A caller that goes away, at any moment: nothing fails, and nothing goes on in the engine."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from starlette.types import ASGIApp, Message

from rheostat_server.app import create_app
from rheostat_server.engines.fake import FakeEngine
from rheostat_server.runtime import Runtime
from rheostat_server.telemetry import UNPLANNED
from tests.limits.metrics import value

Step = Callable[[], Awaitable[Message]]
CHAT = orjson.dumps(
    {"model": "demo", "messages": [{"role": "user", "content": "x"}], "stream": True, "control": {"mode": "off"}}
)
HEADERS = [(b"content-type", b"application/json")]


async def gone() -> Message:
    return {"type": "http.disconnect"}


async def silent() -> Message:
    await asyncio.Event().wait()
    return await gone()


def body(content: bytes, *, more: bool) -> Step:
    async def part() -> Message:
        return {"type": "http.request", "body": content, "more_body": more}

    return part


async def call(app: ASGIApp, path: str, steps: Iterator[Step]) -> list[Message]:
    """What the app sends while the server tells it of `steps`, one for each time it asks."""
    sent: list[Message] = []

    async def receive() -> Message:
        return await next(steps)()

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": HEADERS, "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/control/plan"])
async def test_a_caller_that_leaves_within_its_body_is_no_failure_of_ours(runtime: Runtime, path: str) -> None:
    failed = value("rheostat_requests_total", mode=UNPLANNED, outcome="failed")
    sent = await call(create_app(runtime), path, iter([body(CHAT[:9], more=True), gone]))
    assert sent[0]["status"] == 499
    assert value("rheostat_requests_total", mode=UNPLANNED, outcome="failed") == failed


async def test_a_caller_that_leaves_before_its_stream_has_begun_frees_the_request(runtime: Runtime) -> None:
    engine = FakeEngine(("demo",))
    app = create_app(replace(runtime, engine=engine))
    sent = await call(app, "/v1/chat/completions", iter([body(CHAT, more=False), silent, gone]))
    assert not any(message.get("body") for message in sent)
    assert len(engine.asked) == 1
    assert engine.running == 0
