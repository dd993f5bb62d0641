"""The caller's envelope on the wire: what is in force stays within it, and the receipt tells what is in force."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from rheostat_server.app import create_app
from rheostat_server.policy import DialRange, Envelope, Policy
from rheostat_server.runtime import Runtime
from tests.server.recording import RecordingEngine

BODY: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
SAFE = Envelope("families", safety=DialRange(0.5, 1.0, 0.75), modes=("auto", "adapter", "prompt"))
ASKED_TOO_LOW = [
    pytest.param({"control": {"safety": 0.1}}, {}, id="body"),
    pytest.param({}, {"X-Control-Safety": "0.1"}, id="header"),
    pytest.param({"control": {"preset": "open"}}, {}, id="preset"),
    pytest.param({"model": "demo:open"}, {}, id="model"),
]


@pytest.fixture
def envelope(request: pytest.FixtureRequest) -> Envelope:
    return replace(SAFE, outside=request.param)


@pytest.fixture
def runtime(runtime: Runtime, envelope: Envelope) -> Runtime:
    return replace(runtime, policy=Policy(envelope))


@pytest.mark.parametrize("envelope", ["clamp"], indirect=True)
@pytest.mark.parametrize(("extra", "headers"), ASKED_TOO_LOW)
async def test_a_dial_outside_is_clamped_and_the_receipt_says_so(
    http: httpx.AsyncClient, engine: RecordingEngine, extra: dict[str, Any], headers: dict[str, str]
) -> None:
    whole = await http.post("/v1/chat/completions", json={**BODY, **extra}, headers=headers)
    stream = await http.post("/v1/chat/completions", json={**BODY, **extra, "stream": True}, headers=headers)
    plan = await http.post("/v1/control/plan", json={**BODY, **extra}, headers=headers)
    streamed = json.loads(stream.text.split("\n\n")[-3].removeprefix("data: "))
    for told in (whole.json()["control"], streamed["control"], plan.json()):
        assert told["requested"]["safety"] < 0.5
        assert told["effective"]["safety"] == 0.5
        assert told["clamped"] == ["safety"]
        assert told["control_text"].endswith("[harmless=0.50]")
    assert [asked.body["messages"][0]["content"][-15:] for asked in engine.asked] == ["[harmless=0.50]"] * 2


@pytest.mark.parametrize("envelope", ["reject"], indirect=True)
@pytest.mark.parametrize(("extra", "headers"), ASKED_TOO_LOW)
async def test_a_dial_outside_is_not_permitted_where_the_envelope_rejects(
    http: httpx.AsyncClient, engine: RecordingEngine, extra: dict[str, Any], headers: dict[str, str]
) -> None:
    response = await http.post("/v1/chat/completions", json={**BODY, **extra}, headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (403, "outside_envelope", "control.safety")
    assert "0.5 to 1.0" in error["message"]
    assert engine.asked == []


@pytest.mark.parametrize("envelope", ["clamp"], indirect=True)
async def test_a_mode_outside_is_not_permitted(http: httpx.AsyncClient, engine: RecordingEngine) -> None:
    response = await http.post("/v1/chat/completions", json=BODY, headers={"X-Control-Mode": "off"})
    assert (response.status_code, response.json()["error"]["param"]) == (403, "control.mode")
    assert engine.asked == []


@pytest.mark.parametrize("envelope", ["reject"], indirect=True)
async def test_control_tells_the_envelope(http: httpx.AsyncClient) -> None:
    control = (await http.get("/v1/control")).json()
    assert control["dials"]["safety"] == {"min": 0.5, "max": 1.0, "default": 0.75}
    assert control["outside"] == "reject"
    assert control["modes"] == ["auto", "adapter", "prompt"]


@pytest.mark.parametrize("envelope", ["clamp"], indirect=True)
@pytest.mark.parametrize(("mode", "said"), [("adapter", "[harmless=0.81]"), ("prompt", "put safety first")])
async def test_a_dial_is_said_to_the_model_by_a_step_within_the_envelope(
    runtime: Runtime, engine: RecordingEngine, mode: str, said: str
) -> None:
    strict = replace(SAFE, safety=DialRange(0.804, 1.0, 0.804))
    app = create_app(replace(runtime, policy=Policy(strict)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        answer = await http.post("/v1/chat/completions", json={**BODY, "control": {"safety": 0, "mode": mode}})
    assert answer.json()["control"]["effective"]["safety"] == 0.804
    assert said in str(engine.asked[0].body["messages"])


@pytest.mark.parametrize("envelope", ["clamp"], indirect=True)
async def test_control_lists_no_mode_that_needs_an_adapter_which_the_caller_may_not_use(runtime: Runtime) -> None:
    app = create_app(replace(runtime, policy=Policy(replace(SAFE, adapters=("another",)))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        control = (await http.get("/v1/control")).json()
    assert (control["modes"], control["adapters"]) == (["auto", "prompt"], [])
