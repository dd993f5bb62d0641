"""10,000 requests with something wrong with them: each gets an answer or OpenAI's error, and no log quotes it."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson
import pytest
from fastapi import FastAPI
from starlette.types import Message
from structlog.testing import capture_logs

from rheostat_server.adapters import Adapter, AdapterStore
from rheostat_server.app import create_app
from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.engines.fake import FakeEngine
from rheostat_server.engines.remote import RemoteEngine, Upstream
from rheostat_server.runtime import Runtime, admission_from
from rheostat_server.serve import make_runtime
from rheostat_server.settings import Settings
from tests.engines.remote.scripted import Asked, events, scripted
from tests.engines.remote.scripted import json as as_json
from tests.robustness import rigs
from tests.robustness.mutations import MARK, RERANKED, Sent, mutated
from tests.tiny import TinyAdapter

SEED: Final = 20_261
MOST_SECONDS: Final = 20.0
"""In which any of them must be over."""
REFUSED: Final = (400, 403, 404, 413, 415, 422)
"""The statuses of requests at fault; this server asks for no key."""


@dataclass(slots=True)
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def send(app: FastAPI, sent: Sent) -> Answer:
    """Speaks ASGI itself, since no client would send such headers."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": sent.path, "raw_path": sent.path.encode(), "query_string": b"", "root_path": "", "state": {},
        "headers": [(b"host", b"test"), *sent.headers], "client": ("127.0.0.1", 1), "server": ("test", 80),
    }  # fmt: skip
    answer = Answer()
    coming: list[Message] = [
        {"type": "http.request", "body": sent.body[:100], "more_body": True},
        {"type": "http.request", "body": sent.body[100:], "more_body": False},
    ]

    async def receive() -> Message:
        if not coming:
            await asyncio.Event().wait()
        return coming.pop(0)

    async def take(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message["body"]

    async with asyncio.timeout(MOST_SECONDS):
        with suppress(Exception):  # what the app could not answer is raised again when its 500 is sent
            await app(scope, receive, take)
    return answer


def fault(answer: Answer) -> str | None:
    """What is wrong with an answer."""
    if answer.status not in (200, *REFUSED):
        return f"status {answer.status}"
    if "x-request-id" not in answer.headers:
        return "no X-Request-ID"
    if answer.status == 200:
        return _fault_of_stream(answer) if answer.headers["content-type"].startswith("text/event-stream") else None
    return None if is_openais_error(orjson.loads(answer.body)) else "an error of another shape"


def _fault_of_stream(answer: Answer) -> str | None:
    if not answer.body.endswith(b"data: [DONE]\n\n"):
        return "a stream without its last event"
    return "an error within a stream" if b'"error":' in answer.body else None


def is_openais_error(told: Any) -> bool:
    error = told["error"]
    return (
        told.keys() == {"error"}
        and error.keys() == {"message", "type", "param", "code"}
        and all(isinstance(error[name], str) and error[name] for name in ("message", "type", "code"))
        and isinstance(error["param"], str | None)
    )


async def seen_of(app: FastAPI, requests: Iterable[Sent]) -> Counter[str]:
    """How often each route answered with each status; fails at what should not be, with the request."""
    seen: Counter[str] = Counter()
    for sent in requests:
        answer = await send(app, sent)
        found = fault(answer)
        assert found is None, (found, sent.path, sent.headers, sent.body[:600], answer.body[:600])
        seen[f"{sent.path} {answer.status}"] += 1
    return seen


def drawn(count: int, seed: int, paths: tuple[str, ...] = ()) -> Iterable[Sent]:
    chance = Random(seed)
    return (mutated(chance, paths=paths) for _ in range(count))


def without_content(logs: object, caplog: pytest.LogCaptureFixture) -> bool:
    return MARK not in repr(logs) and MARK not in caplog.text


@pytest.mark.slow
async def test_ten_thousand_fuzzed_requests_are_answered_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    given = Settings(audit=tmp_path / "audit.jsonl", audit_max_bytes=2**40)
    app = create_app(replace(rigs.runtime(given), admission=admission_from(given)))
    async with app.router.lifespan_context(app):
        with capture_logs() as logs:
            seen = await seen_of(app, drawn(10_000, SEED))
    assert without_content(logs, caplog)
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    assert seen.total() == sum("part_of" not in record for record in records) == 10_000
    for status in (200, 400, 404, 415, 422):
        assert seen[f"/v1/chat/completions {status}"] >= 10, seen
    assert seen["/v1/control/plan 200"] >= 100
    assert seen["/v1/control/score 200"] >= 100
    assert seen["/v1/control/sweep 200"] >= 100


async def test_what_is_logged_of_a_failure_quotes_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    runtime = rigs.runtime()
    app = create_app(replace(runtime, engine=FakeEngine(("demo",), rigs.ADAPTERS.ids, dead=True)))
    with capture_logs() as logs:
        answers = [await send(app, sent) for sent in drawn(300, SEED + 1, ("/v1/chat/completions",))]
    assert {answer.status for answer in answers} <= {*REFUSED, 503}
    assert sum(answer.status == 503 for answer in answers) == len(logs) > 50
    assert without_content(logs, caplog)


@pytest.fixture
def embedded(tiny_model: Path, tiny_adapters: list[TinyAdapter], tiny_scorers: Path) -> Runtime:
    """The tiny model, under the names that the bodies give."""
    manifests = [adapter.manifest.model_copy(update={"name": "plain"}) for adapter in tiny_adapters[:1]]
    adapters = AdapterStore(tuple(Adapter(each.id, tiny_adapters[0].folder, each) for each in manifests))
    engine = EmbeddedEngine.load(tiny_model, served_name="demo", adapters=adapters.folders(), max_batch=16, threads=1)
    return make_runtime(engine, adapters, Settings(max_body_bytes=100_000), tiny_scorers)


@pytest.mark.slow
async def test_the_embedded_engine_takes_them_too(embedded: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = create_app(embedded)
    async with app.router.lifespan_context(app):
        with capture_logs() as logs:
            seen = await seen_of(app, drawn(1_000, SEED + 2))
    assert without_content(logs, caplog)
    assert seen["/v1/chat/completions 200"] >= 10, seen


def upstream_answer(asked: Asked) -> bytes:
    """What an upstream that takes everything answers: a stream to who asks for one."""
    if orjson.loads(asked.body)["stream"]:
        chunk = b'data: {"choices":[{"index":0,"delta":{"content":"a b"},"finish_reason":"stop"}]}\n\n'
        return events(chunk, b"data: [DONE]\n\n")
    choice = {"index": 0, "message": {"role": "assistant", "content": "a b"}, "finish_reason": "stop"}
    return as_json({"choices": [choice]})


async def test_what_a_remote_engine_is_asked_can_be_sent_to_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with scripted({"/v1/chat/completions": upstream_answer}) as upstream:
        engine = RemoteEngine(Upstream(upstream.url), ["demo"])
        app = create_app(replace(rigs.runtime(), engine=engine))
        with capture_logs() as logs:
            seen = await seen_of(app, drawn(1_000, SEED + 3, ("/v1/chat/completions", "/v1/control/sweep")))
        await engine.close()
    assert without_content(logs, caplog)
    assert seen["/v1/chat/completions 200"] >= 150, seen


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["rerank", "prompt+rerank", "adapter+rerank"])
async def test_any_seed_that_json_can_tell_goes_with_reranking_on_a_remote_engine(mode: str, stream: bool) -> None:
    asked: list[Any] = []

    def answer(request: Asked) -> bytes:
        asked.append(orjson.loads(request.body)["seed"])
        return upstream_answer(request)

    async with scripted({"/v1/chat/completions": answer}) as upstream:
        engine = RemoteEngine(Upstream(upstream.url), ["demo"])
        app = create_app(replace(rigs.runtime(), engine=engine))
        for seed in (7, -1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1):
            asked.clear()
            body = {**RERANKED, "seed": seed, "stream": stream, "control": {"mode": mode, "candidates": 3}}
            if not stream:
                del body["stream_options"]
            sent = Sent("/v1/chat/completions", orjson.dumps(body), [(b"content-type", b"application/json")])
            assert fault(await send(app, sent)) is None
            assert sorted(asked) == sorted(seeds_of(seed))
        await engine.close()


def seeds_of(seed: int) -> list[int]:
    """Of three candidates."""
    if seed in (2**63 - 1, 2**64 - 1):
        return [seed, 0, 1]
    return [seed, seed + 1, seed + 2]
