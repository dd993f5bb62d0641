"""Pages of other origins: none may use the server unless the operator names theirs."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from rheostat_server.api.cross_origin import CrossOrigin, open_to
from rheostat_server.app import create_app
from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.runtime import Runtime
from rheostat_server.settings import Settings
from tests.server.recording import RecordingEngine

APP = "https://app.example"
CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
PREFLIGHT = {
    "Origin": APP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-control-safety,x-stainless-lang",
}


@pytest.fixture
async def opened(runtime: Runtime) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A server whose operator named the app's origin."""
    transport = httpx.ASGITransport(open_to([APP], create_app(runtime)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_without_the_setting_no_page_of_another_origin_is_let_in(http: httpx.AsyncClient) -> None:
    assert (await http.options("/v1/chat/completions", headers=PREFLIGHT)).status_code == 405
    answer = await http.post("/v1/chat/completions", json=CHAT, headers={"Origin": APP})
    assert [name for name in answer.headers if name.startswith("access-control-")] == []


async def test_a_named_origin_may_ask_and_read(opened: httpx.AsyncClient) -> None:
    preflight = await opened.options("/v1/chat/completions", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == APP
    assert "x-stainless-lang" in preflight.headers["access-control-allow-headers"]
    answer = await opened.post("/v1/chat/completions", json=CHAT, headers={"Origin": APP})
    assert answer.headers["access-control-allow-origin"] == APP
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://other.example", "http://app.example", f"{APP}:8443", "null"])
async def test_another_origin_is_not_let_in(opened: httpx.AsyncClient, origin: str) -> None:
    assert (await opened.options("/v1/chat/completions", headers={**PREFLIGHT, "Origin": origin})).status_code == 400
    answer = await opened.get("/v1/models", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_can_read_refusals_and_internal_errors(
    opened: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(request: EngineRequest) -> Completion:
        raise ZeroDivisionError

    monkeypatch.setattr(engine, "complete", broken)
    for body, status in (({}, 422), (CHAT, 500)):
        answer = await opened.post("/v1/chat/completions", json=body, headers={"Origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, APP)


async def test_a_star_lets_in_every_page(runtime: Runtime) -> None:
    transport = httpx.ASGITransport(open_to(["*"], create_app(runtime)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/v1/models", headers={"Origin": "https://anyone.example"})
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_the_middleware_for_vllm_reads_the_setting(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHEOSTAT_CORS_ORIGINS", f'["{APP}"]')
    transport = httpx.ASGITransport(CrossOrigin(create_app(runtime)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/v1/models", headers={"Origin": APP})
    assert answer.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173", "http://[::1]:3000", "chrome-extension://abc", "*"])
def test_an_origin_is_scheme_host_and_port(origin: str) -> None:
    assert Settings(cors_origins=[origin]).cors_origins == [origin]


@pytest.mark.parametrize("origin", [f"{APP}/", f"{APP}/page", "app.example", "https://App.example", "https://*", ""])
def test_an_origin_that_no_browser_would_send_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match=r"like https://app\.example"):
        Settings(cors_origins=[origin])
