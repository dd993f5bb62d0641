"""Keys and envelopes over HTTP: no request without a key, and none beyond its envelope, by whichever way it asks."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rheostat_server.app import create_app
from rheostat_server.callers.book import Defaults
from rheostat_server.callers.shelf import Shelf
from rheostat_server.plan import Selection
from rheostat_server.runtime import Runtime
from tests.server.callers.files import ADMIN_KEY, KIDS_KEY, LAB_KEY, POLICY, bearer, write
from tests.server.recording import RecordingEngine

CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}


@asynccontextmanager
async def served(runtime: Runtime, path: Path) -> AsyncGenerator[httpx.AsyncClient, None]:
    app = create_app(replace(runtime, shelf=Shelf.read(path, Defaults())))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        yield http


@pytest.fixture
async def http(runtime: Runtime, tmp_path: Path) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with served(runtime, write(tmp_path)) as http:
        yield http


async def ask(http: httpx.AsyncClient, key: str, control: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
    headers = {**bearer(key), **more.pop("headers", {})}
    return await http.post("/v1/chat/completions", json={**CHAT, "control": control, **more}, headers=headers)


ROUTES = [
    ("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/demo"), ("GET", "/v1/control"),
    ("POST", "/v1/control/plan"), ("POST", "/v1/control/score"), ("POST", "/v1/control/sweep"),
    ("POST", "/v1/admin/policy/reload"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [{}, bearer("nobody"), bearer(""), bearer(KIDS_KEY + "x"), {"Authorization": "Basic eDp5"},
     {"Authorization": KIDS_KEY}, {"X-API-Key": KIDS_KEY}, bearer("\u00e9")],
)  # fmt: skip
async def test_no_route_answers_without_a_key_that_is_known(
    http: httpx.AsyncClient,
    engine: RecordingEngine,
    method: str,
    path: str,
    headers: dict[str, str],
) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    response = await http.request(method, path, json=CHAT, headers=encoded)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert KIDS_KEY not in response.text
    assert engine.asked == []


async def test_every_route_but_probes_documents_and_the_playground_asks_for_a_key(
    runtime: Runtime, tmp_path: Path
) -> None:
    app = create_app(replace(runtime, shelf=Shelf.read(write(tmp_path), Defaults())))
    open_to_all = {"/health", "/ready", "/metrics", "/"}
    ours = {path for _, path in ROUTES} | {"/v1/models/{name:path}"}
    documents = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
    files = {"/playground/{name}"}
    assert {getattr(route, "path", "") for route in app.routes} <= ours | open_to_all | files | documents
    async with served(runtime, write(tmp_path)) as http:
        assert {(await http.get(path)).status_code for path in sorted(open_to_all | documents)} == {200}


async def test_a_dial_outside_is_clamped_or_refused_as_the_envelope_says(http: httpx.AsyncClient) -> None:
    kids = (await ask(http, KIDS_KEY, {"safety": 0.1, "helpfulness": 1.0})).json()["control"]
    assert kids["effective"] == {"safety": 0.8, "helpfulness": 0.8}
    assert kids["clamped"] == ["safety", "helpfulness"]
    lab = await ask(http, LAB_KEY, {"safety": 0.1})
    assert (lab.status_code, lab.json()["error"]["param"]) == (403, "control.safety")
    assert "safety is 0.1; envelope 'lab' allows 0.2 to 1.0" in lab.json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({"control": {"safety": 0.0}}, {}),
        ({}, {"X-Control-Safety": "0"}),
        ({"control": {"preset": "bold", "mode": "adapter"}}, {}),
        ({"model": "demo:bold", "control": {"mode": "adapter"}}, {}),
        ({"control": {"mode": "auto", "safety": 0}}, {}),
        ({"messages": [{"role": "system", "content": "safety 0"}, *CHAT["messages"]], "control": {"safety": 0}}, {}),
        ({"control": {"safety": 0}, "stream": True}, {}),
    ],
)
async def test_no_way_of_asking_leaves_the_envelope(
    http: httpx.AsyncClient,
    engine: RecordingEngine,
    more: dict[str, Any],
    headers: dict[str, str],
) -> None:
    response = await http.post("/v1/chat/completions", json={**CHAT, **more}, headers={**bearer(KIDS_KEY), **headers})
    assert response.status_code == 200
    assert engine.asked[-1].body["messages"][-1]["content"].endswith("[harmless=0.80]")


@pytest.mark.parametrize("mode", ["off", "prompt", "prompt+rerank", "adapter+rerank"])
async def test_a_mode_that_is_not_held_is_not_permitted(http: httpx.AsyncClient, mode: str) -> None:
    by_body = await ask(http, KIDS_KEY, {"mode": mode})
    by_header = await ask(http, KIDS_KEY, headers={"X-Control-Mode": mode})
    for response in (by_body, by_header):
        assert (response.status_code, response.json()["error"]["code"]) == (403, "outside_envelope")
        assert "envelope 'children' allows adapter, rerank" in response.json()["error"]["message"]
    assert (await ask(http, LAB_KEY, {"mode": "off"})).status_code == 403


async def test_a_preset_that_names_a_mode_does_not_widen_the_modes(http: httpx.AsyncClient) -> None:
    assert (await ask(http, KIDS_KEY, {"preset": "bold"})).status_code == 403


LIMITED = f"""{POLICY}
  calm: {{safety: 0.9}}
""".replace(
    "lab:      {safety: {min: 0.1}, ", "lab: {safety: {min: 0.1}, presets: [calm], max_tokens: 40, candidates: 3, "
)


async def test_presets_tokens_and_choices_are_held_to_the_envelope(
    runtime: Runtime,
    engine: RecordingEngine,
    tmp_path: Path,
) -> None:
    async with served(runtime, write(tmp_path, LIMITED)) as http:
        for more in ({"control": {"preset": "strict"}}, {"model": "demo:strict"}):
            refused = await ask(http, LAB_KEY, **more)
            assert (refused.status_code, refused.json()["error"]["param"]) == (403, "control.preset")
        assert (await ask(http, LAB_KEY, {"preset": "calm"})).status_code == 200
        for field, value in (("max_tokens", 41), ("max_completion_tokens", 1000), ("n", 4)):
            refused = await ask(http, LAB_KEY, None, **{field: value})
            assert (refused.status_code, refused.json()["error"]["param"]) == (403, field)
            assert f"{field} is {value}; envelope 'lab' allows at most" in refused.json()["error"]["message"]
        for wrong in ("100", 100.0, True, [100]):
            assert (await ask(http, LAB_KEY, max_tokens=wrong)).status_code == 422
        assert (await ask(http, LAB_KEY, max_completion_tokens=7)).status_code == 200
        assert (engine.asked[-1].body["max_tokens"], engine.asked[-1].body["max_completion_tokens"]) == (7, 7)
        assert (await ask(http, LAB_KEY)).status_code == 200
        assert engine.asked[-1].body["max_tokens"] == 40
        models = (await http.get("/v1/models", headers=bearer(LAB_KEY))).json()["data"]
        assert [model["id"] for model in models] == ["demo", "demo:calm"]


async def test_a_clamping_envelope_cuts_tokens_and_choices_and_says_so(
    runtime: Runtime,
    engine: RecordingEngine,
    tmp_path: Path,
) -> None:
    async with served(runtime, write(tmp_path, LIMITED.replace("outside: reject", "outside: clamp"))) as http:
        told = (await ask(http, LAB_KEY, max_tokens=500, max_completion_tokens=600, n=9)).json()["control"]
        assert told["clamped"] == ["n", "max_tokens", "max_completion_tokens"]
        asked = engine.asked[-1].body
        assert (asked["n"], asked["max_tokens"], asked["max_completion_tokens"]) == (3, 40, 40)


async def test_models_and_adapters_are_held_to_the_envelope(runtime: Runtime, tmp_path: Path) -> None:
    text = POLICY.replace("lab:      {", "lab: {models: [other], ").replace("candidates: 8", "adapters: [other]")
    async with served(runtime, write(tmp_path, text)) as http:
        refused = await ask(http, LAB_KEY)
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "model")
        assert (await http.get("/v1/models", headers=bearer(LAB_KEY))).json()["data"] == []
        refused = await ask(http, KIDS_KEY, {"adapter": "demo-control"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "control.adapter")
        assert (await ask(http, KIDS_KEY)).status_code == 422
        assert (await http.get("/v1/control", headers=bearer(KIDS_KEY))).json()["adapters"] == []


async def test_control_tells_each_caller_its_own_envelope(http: httpx.AsyncClient) -> None:
    kids, lab = [(await http.get("/v1/control", headers=bearer(key))).json() for key in (KIDS_KEY, LAB_KEY)]
    assert kids["dials"]["safety"] == {"min": 0.8, "max": 1.0, "default": 1.0}
    assert kids["modes"] == ["adapter"]
    assert (lab["outside"], kids["outside"]) == ("reject", "clamp")
    assert "off" not in lab["modes"]


async def test_candidates_are_held_to_the_envelope(runtime: Runtime, tmp_path: Path) -> None:
    runtime = replace(runtime, means=replace(runtime.means, selection=Selection(("selector@1",), candidates=12)))
    async with served(runtime, write(tmp_path)) as http:
        for asked, clamped in ((None, []), (20, ["candidates"])):
            control = {"mode": "rerank", "candidates": asked}
            plan = await http.post("/v1/control/plan", json={**CHAT, "control": control}, headers=bearer(KIDS_KEY))
            assert plan.json()["candidates"] == {"wanted": 8}
            assert plan.json()["clamped"] == clamped


async def test_a_reload_takes_the_new_file_and_refuses_a_bad_one(runtime: Runtime, tmp_path: Path) -> None:
    path = write(tmp_path)
    async with served(runtime, path) as http:
        path.write_text(POLICY.replace("min: 0.8", "min: 0.9"))
        assert (await ask(http, KIDS_KEY)).json()["control"]["effective"]["safety"] == 1.0
        for key, status in ((KIDS_KEY, 403), (ADMIN_KEY, 200)):
            response = await http.post("/v1/admin/policy/reload", headers=bearer(key))
            assert response.status_code == status, response.text
        assert response.json()["envelopes"] == ["children", "lab"]
        assert (await ask(http, KIDS_KEY, {"safety": 0})).json()["control"]["effective"]["safety"] == 0.9
        path.write_text(POLICY.replace("min: 0.8", "min: 8"))
        refused = await http.post("/v1/admin/policy/reload", headers=bearer(ADMIN_KEY))
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "policy_refused")
        assert "policy.yaml:6: envelopes.children.safety.min" in refused.json()["error"]["message"]
        assert (await ask(http, KIDS_KEY, {"safety": 0})).json()["control"]["effective"]["safety"] == 0.9


async def test_anonymous_callers_have_the_envelope_that_the_operator_names(
    runtime: Runtime,
    tmp_path: Path,
) -> None:
    async with served(runtime, write(tmp_path, POLICY.replace("anonymous: null", "anonymous: children"))) as http:
        told = (await http.post("/v1/chat/completions", json={**CHAT, "control": {"safety": 0}})).json()
        assert told["control"]["effective"]["safety"] == 0.8
        assert (await ask(http, "nobody")).status_code == 401
