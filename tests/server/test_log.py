"""Nothing is logged of what people wrote, whatever becomes of their requests."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import structlog
import uvicorn

from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.errors import EngineFailed
from rheostat_server.log import configure_logging
from rheostat_server.sse import event
from tests.server.recording import RecordingEngine

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
