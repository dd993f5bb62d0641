"""Nothing is logged of what people wrote, whatever becomes of their requests."""

import asyncio
import logging
import os
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn

from rheostat_server.app import create_app
from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.engines.remote import RemoteEngine, Upstream
from rheostat_server.errors import ContextOverflow, EngineFailed
from rheostat_server.log import configure_logging
from rheostat_server.plan import Selection
from rheostat_server.reranking.track import Track
from rheostat_server.runtime import Runtime
from rheostat_server.scorers.panel import Member, Panel
from rheostat_server.scorers.remote import build_remote
from rheostat_server.scorers.spec.remote import RemoteChatSpec
from rheostat_server.sse import event
from tests.engines.remote import scripted
from tests.server.recording import RecordingEngine
from tools.processes import BIN

WRITTEN = "what-somebody-wrote"
BODY: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": WRITTEN}]}
Fail = Callable[[EngineRequest], Awaitable[Completion]]


async def bug(request: EngineRequest) -> Completion:
    raise ValueError(f"cannot bear {request.body['messages']}")


async def failure(request: EngineRequest) -> Completion:
    raise EngineFailed("the engine is broken")


async def cut_off(request: EngineRequest) -> AsyncGenerator[bytes, None]:
    yield event({"choices": [{"delta": {"content": WRITTEN}}]})
    raise EngineFailed("the engine is broken")


@pytest.mark.parametrize(("complete", "told"), [(bug, "internal error"), (failure, "request failed")])
async def test_a_request_that_fails_is_logged_without_its_content(
    http: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch, complete: Fail, told: str
) -> None:
    monkeypatch.setattr(engine, "complete", complete)
    with structlog.testing.capture_logs() as logs:
        response = await http.post("/v1/chat/completions", json=BODY)
    assert response.status_code >= 500
    assert WRITTEN not in response.text
    assert [line["event"] for line in logs] == [told]
    assert WRITTEN not in repr(logs)


async def test_a_stream_that_fails_is_logged_without_its_content(
    http: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "stream", cut_off)
    with structlog.testing.capture_logs() as logs:
        response = await http.post("/v1/chat/completions", json={**BODY, "stream": True})
    assert "engine_failed" in response.text
    assert [line["event"] for line in logs] == ["stream failed"]
    assert WRITTEN not in repr(logs)


QUOTED: dict[str, Any] = {"error": {"message": f"cannot process: {WRITTEN}", "type": WRITTEN, "code": WRITTEN}}
BEGUN = event({"choices": [{"index": 0, "delta": {"content": "Y"}}]})


@asynccontextmanager
async def in_front_of(runtime: Runtime, answer: bytes, *paths: str) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client of the app, whose upstream answers so."""
    async with scripted.scripted(dict.fromkeys(paths or ("/v1/chat/completions",), answer)) as upstream:
        engine = RemoteEngine(Upstream(upstream.url), ["demo"])
        transport = httpx.ASGITransport(create_app(replace(runtime, engine=engine)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
        await engine.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(scripted.json(QUOTED, 500), id="failed"),
        pytest.param(scripted.json(QUOTED, 503), id="unavailable"),
        pytest.param(scripted.json({**QUOTED, "choices": None}), id="failed under status 200"),
        pytest.param(scripted.http(200, b"{}", f"text/{WRITTEN}"), id="another content-type"),
        pytest.param(scripted.json({"error": {**QUOTED["error"], "code": "model_not_found"}}, 404), id="no model"),
    ],
)
async def test_what_an_upstream_says_is_told_to_the_caller_and_not_logged(
    runtime: Runtime, answer: bytes, stream: bool
) -> None:
    async with in_front_of(runtime, answer) as http:
        with structlog.testing.capture_logs() as logs:
            response = await http.post("/v1/chat/completions", json={**BODY, "stream": stream})
    assert response.status_code in (502, 503)
    assert [line["event"] for line in logs] == ["request failed"]
    assert "upstream" in logs[0]["reason"]
    assert WRITTEN not in repr(logs)


async def test_what_an_upstream_says_within_a_stream_is_told_to_the_caller_and_not_logged(runtime: Runtime) -> None:
    async with in_front_of(runtime, scripted.events(BEGUN, event(QUOTED))) as http:
        with structlog.testing.capture_logs() as logs:
            response = await http.post("/v1/chat/completions", json={**BODY, "stream": True})
    assert WRITTEN in response.text
    assert [line["reason"] for line in logs] == ["the upstream server failed within the stream"]
    assert WRITTEN not in repr(logs)


async def test_an_upstream_that_is_not_ready_is_logged_without_its_words(runtime: Runtime) -> None:
    async with in_front_of(runtime, scripted.json(QUOTED, 500), "/v1/models") as http:
        with structlog.testing.capture_logs() as logs:
            assert (await http.get("/ready")).status_code == 503
    assert [line["reason"] for line in logs] == ["the upstream server answered with status 500"]
    assert WRITTEN not in repr(logs)


async def test_a_refusal_within_a_stream_is_logged_by_its_code(
    http: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(request: EngineRequest) -> AsyncGenerator[bytes, None]:
        yield BEGUN
        raise ContextOverflow(f"too long: {WRITTEN}")

    monkeypatch.setattr(engine, "stream", refused)
    with structlog.testing.capture_logs() as logs:
        await http.post("/v1/chat/completions", json={**BODY, "stream": True})
    assert [line["reason"] for line in logs] == ["context_length_exceeded"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(scripted.json(QUOTED, 500), id="failed"),
        pytest.param(scripted.json(QUOTED), id="no answer"),
        pytest.param(scripted.http(200, b"{}", f"text/{WRITTEN}"), id="another content-type"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_scorers_server_says_is_not_logged(runtime: Runtime, answer: bytes, stream: bool) -> None:
    async with scripted.scripted({"/v1/chat/completions": answer}) as server:
        scorer = build_remote(RemoteChatSpec(kind="remote", api="chat", url=server.url, model="judge"))
        selection = Selection((scorer.card.name,), candidates=2)
        means = replace(runtime.means, selection=selection)
        judged = replace(runtime, means=means, track=Track(Panel([Member(scorer)]), follows_load=False))
        transport = httpx.ASGITransport(create_app(judged), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            with structlog.testing.capture_logs() as logs:
                asked = {**BODY, "stream": stream, "control": {"mode": "rerank"}}
                response = await http.post("/v1/chat/completions", json=asked)
        await scorer.close()
    assert "scorer_unavailable" in response.text
    assert logs
    assert WRITTEN not in repr(logs)


async def test_a_start_that_fails_does_not_say_what_the_upstream_said(tmp_path: Path) -> None:
    async with scripted.scripted({"/v1/models": scripted.json(QUOTED, 500)}) as upstream:
        starting = await asyncio.create_subprocess_exec(
            BIN / "rheostat", "serve", "--upstream", upstream.url, cwd=tmp_path, stderr=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ},
        )  # fmt: skip
        out, err = await starting.communicate()
    assert starting.returncode == 2
    assert b"answered with status 500" in err
    assert WRITTEN.encode() not in out + err


@pytest.mark.parametrize(
    "extra", [{}, {"stream": True}, {"model": WRITTEN}, {"control": {"mode": WRITTEN}}, {"n": WRITTEN}]
)
async def test_a_request_that_is_answered_or_refused_is_not_logged(
    http: httpx.AsyncClient, extra: dict[str, Any]
) -> None:
    with structlog.testing.capture_logs() as logs:
        await http.post("/v1/chat/completions", json={**BODY, **extra})
    assert logs == []


def test_uvicorn_logs_where_a_bug_is_and_not_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(structlog, "configure", lambda **_: None)
    configure_logging("info")
    uvicorn.Config("nowhere:app")
    try:
        raise ValueError(WRITTEN)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    logged = capsys.readouterr().err
    assert "test_log.py" in logged
    assert "ValueError" in logged
    assert WRITTEN not in logged
