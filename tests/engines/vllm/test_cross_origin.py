"""Pages of other origins pass vLLM's own middleware, in the order in which vLLM puts it on its app."""

from argparse import Namespace

import httpx
import pytest
from fastapi import FastAPI
from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware

from rheostat_server.adapters import AdapterStore
from rheostat_server.engines.vllm.flags import completed
from rheostat_server.engines.vllm.plugin import RheostatPlugin
from rheostat_server.settings import Settings
from tests.engines.vllm.test_flags import read_by_vllm

APP = "https://app.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """vLLM's app with our routes and the middleware of `rheostat serve`, as it is before the engine is there."""
    monkeypatch.setenv("RHEOSTAT_CORS_ORIGINS", f'["{APP}"]')
    app = FastAPI()
    RheostatPlugin().attach_router(app)
    flags = read_by_vllm(completed(Settings(model="folder/model"), AdapterStore(), ["--api-key", "sesame"]))
    init_entrypoints_middleware(Namespace(**flags), app, ())
    return app


async def test_a_page_may_ask_and_reads_what_vllm_refuses(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        preflight = await http.options("/v1/models", headers={"Origin": APP, **PREFLIGHT})
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, APP)
        for key, status in (("wrong", 401), ("sesame", 503)):
            answer = await http.get("/v1/models", headers={"Origin": APP, "Authorization": f"Bearer {key}"})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, APP)
            assert "X-Request-ID" in answer.headers["access-control-expose-headers"]


async def test_another_origin_is_not_let_in(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        preflight = await http.options("/v1/models", headers={"Origin": "https://other.example", **PREFLIGHT})
        assert preflight.status_code == 400
        assert "access-control-allow-origin" not in preflight.headers
