"""The routes beside chat: models, control, the plan, health and metrics."""

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

from rheostat_server.app import add_routes
from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.errors import ContextOverflow, EngineFailed
from tests.server.recording import RecordingEngine


async def test_presets_are_listed_as_models(http: httpx.AsyncClient) -> None:
    names = [model["id"] for model in (await http.get("/v1/models")).json()["data"]]
    assert names == ["demo", "demo:strict", "demo:balanced", "demo:open"]
    assert (await http.get("/v1/models/demo:strict")).json()["id"] == "demo:strict"
    assert (await http.get("/v1/models/nobody")).status_code == 404


async def test_control_tells_what_a_caller_may_set(http: httpx.AsyncClient) -> None:
    control = (await http.get("/v1/control")).json()
    assert control["dials"]["safety"] == {"min": 0.0, "max": 1.0, "default": 0.75}
    assert control["modes"] == ["auto", "off", "prompt", "adapter"]
    assert control["presets"]["strict"] == {"safety": 1.0, "helpfulness": 0.5}
    assert control["adapters"][0]["attainable"] == {"safety": [0.1, 0.9]}


async def test_a_plan_runs_nothing(http: httpx.AsyncClient, engine: RecordingEngine) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "control": {"safety": 0.5}}
    plan = (await http.post("/v1/control/plan", json=body)).json()
    assert plan["mode"] == "adapter"
    assert plan["engine"] == "recording"
    assert plan["engine_request"]["messages"][0]["content"] == "Hello [helpful=0.75][harmless=0.50]"
    assert engine.asked == []


async def test_health_ready_and_metrics_answer(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).json() == {"status": "alive"}
    assert (await http.get("/ready")).json()["models"] == ["demo"]
    assert "rheostat_dial_in_force" in (await http.get("/metrics")).text


async def test_a_server_that_is_starting_lives_and_is_not_ready() -> None:
    app = FastAPI()
    add_routes(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        assert (await http.get("/health")).status_code == 200
        for path in ("/ready", "/v1/models", "/v1/control"):
            response = await http.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")


async def test_unknown_paths_and_methods_answer_in_openais_shape(http: httpx.AsyncClient) -> None:
    for response, status in ((await http.get("/v2"), 404), (await http.get("/v1/chat/completions"), 405)):
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"


async def test_requests_are_counted_by_how_they_ended(
    http: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(request: EngineRequest) -> Completion:
        raise ContextOverflow("too long") if request.body.get("long") else EngineFailed("broken")

    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("rheostat_requests_total", {"mode": "adapter", "outcome": outcome}) or 0

    outcomes = ("answered", "refused", "failed")
    before = [counted(outcome) for outcome in outcomes]
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
    await http.post("/v1/chat/completions", json=body)
    await http.post("/v1/chat/completions", json={**body, "stream": True})
    monkeypatch.setattr(engine, "complete", failing)
    await http.post("/v1/chat/completions", json={**body, "long": True})
    await http.post("/v1/chat/completions", json=body)
    assert [counted(outcome) for outcome in outcomes] == [before[0] + 2, before[1] + 1, before[2] + 1]
    assert 'rheostat_requests_total{mode="adapter",outcome="answered"}' in (await http.get("/metrics")).text


async def test_the_openapi_document_describes_control(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    for path in ("/v1/chat/completions", "/v1/control/plan"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        control = body["properties"]["control"]["anyOf"][0]
        names = {"safety", "helpfulness", "mode", "adapter", "candidates", "preset", "choose_after", "early_stop"}
        assert set(control["properties"]) == names
        assert control["properties"]["safety"]["maximum"] == 1
        assert "default" not in control["properties"]["safety"]
