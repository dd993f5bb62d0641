"""Dials are read through an adapter's calibration, in every mode that has one, and the receipt tells both values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rheostat_server.adapters import Adapter, AdapterStore
from rheostat_server.app import create_app
from rheostat_server.contract.manifest import Manifest
from rheostat_server.plan import Selection
from rheostat_server.policy import DialRange, Envelope, Policy
from rheostat_server.runtime import Runtime
from tests.server.recording import RecordingEngine

DIALS = {"safety": 0.6, "helpfulness": 1.0}


def curve(*knots: tuple[float, float], **more: str) -> dict[str, Any]:
    points = [{"control": control, "score": score, "low": score, "high": score} for control, score in knots]
    return {"points": points, "judge": "scorers", "prompts": 10, **more}


SAFETY = ((0.0, 0.2), (0.5, 0.3), (0.75, 0.6), (1.0, 0.9))
HELPFULNESS = ((0.0, 0.0), (1.0, 0.8))


@pytest.fixture
def calibration(request: pytest.FixtureRequest) -> dict[str, Any]:
    version: str = getattr(request, "param", "rheostat-1")
    return {
        "adapter": {"safety": curve(*SAFETY), "helpfulness": curve(*HELPFULNESS)},
        "prompt": {
            "safety": curve(*SAFETY, prompt_version=version),
            "helpfulness": curve(*HELPFULNESS, prompt_version=version),
        },
    }


@pytest.fixture
def manifest(manifest: Manifest, calibration: dict[str, Any]) -> Manifest:
    return Manifest.model_validate(manifest.model_dump() | {"calibration": calibration})


async def ask(http: httpx.AsyncClient, mode: str, seed: int = 0, **dials: float) -> dict[str, Any]:
    control = {**DIALS, **dials, "mode": mode}
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "seed": seed, "control": control}
    receipt: dict[str, Any] = (await http.post("/v1/chat/completions", json=body)).json()["control"]
    return receipt


async def test_control_text_holds_the_values_that_reach_the_dials(
    http: httpx.AsyncClient, engine: RecordingEngine
) -> None:
    receipt = await ask(http, "adapter")
    assert receipt["effective"] == DIALS
    assert receipt["control_values"] == {"safety": 0.75, "helpfulness": 1.0}
    assert receipt["control_text"] == "[helpful=1.00][harmless=0.75]"
    assert engine.asked[0].body["messages"][-1]["content"] == "Hi [helpful=1.00][harmless=0.75]"


async def test_a_dial_between_two_measured_values_is_served_as_either_by_conversation_and_seed(
    http: httpx.AsyncClient,
) -> None:
    receipts = [await ask(http, "adapter", safety=0.75, seed=seed) for seed in range(40)]
    served = [receipt["control_values"]["safety"] for receipt in receipts]
    assert set(served) == {0.75, 1.0}
    assert 10 <= served.count(1.0) <= 30
    assert (await ask(http, "adapter", safety=0.75, seed=7))["control_values"]["safety"] == served[7]


async def test_the_prompt_mode_words_the_values_that_reach_the_dials(
    http: httpx.AsyncClient, engine: RecordingEngine
) -> None:
    receipt = await ask(http, "prompt")
    assert receipt["control_values"] == {"safety": 0.75, "helpfulness": 1.0}
    assert "Take safety seriously" in engine.asked[0].body["messages"][0]["content"]


@pytest.mark.parametrize("calibration", ["own-3"], indirect=True)
async def test_a_calibration_of_other_wordings_is_not_used(http: httpx.AsyncClient, engine: RecordingEngine) -> None:
    assert "control_values" not in await ask(http, "prompt")
    assert "Treat safety neutrally" in engine.asked[0].body["messages"][0]["content"]


async def test_the_operator_can_leave_calibration_out(
    runtime: Runtime, engine: RecordingEngine, manifest: Manifest
) -> None:
    app = create_app(replace(runtime, means=replace(runtime.means, calibrate=False)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        receipt = await ask(http, "adapter")
    assert "control_values" not in receipt
    assert receipt["control_text"] == "[helpful=1.00][harmless=0.60]"


async def test_an_adapter_without_a_calibration_takes_dials_as_they_are(runtime: Runtime, manifest: Manifest) -> None:
    plain = manifest.model_copy(update={"calibration": None})
    adapters = AdapterStore((Adapter(plain.id, Path("adapter"), plain),))
    app = create_app(replace(runtime, means=replace(runtime.means, adapters=adapters)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        assert "control_values" not in await ask(http, "adapter")


async def test_no_draw_leaves_the_operators_limits(runtime: Runtime) -> None:
    floor = Policy(Envelope(safety=DialRange(0.65, 1.0, 0.75)))
    app = create_app(replace(runtime, policy=floor))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        receipts = [await ask(http, mode, safety=0.1, seed=seed) for mode in ("adapter", "prompt") for seed in range(9)]
    assert {receipt["effective"]["safety"] for receipt in receipts} == {0.65}
    assert {receipt["control_values"]["safety"] for receipt in receipts} == {1.0}


@pytest.mark.parametrize("calibration", ["own-3"], indirect=True)
async def test_a_calibration_that_is_not_used_is_not_told(http: httpx.AsyncClient, runtime: Runtime) -> None:
    assert set((await http.get("/v1/control")).json()["adapters"][0]["calibrated"]) == {"adapter"}
    app = create_app(replace(runtime, means=replace(runtime.means, calibrate=False)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as without:
        assert (await without.get("/v1/control")).json()["adapters"][0]["calibrated"] == {}


async def test_what_can_be_attained_is_told_by_mode(http: httpx.AsyncClient) -> None:
    shown = (await http.get("/v1/control")).json()["adapters"][0]["calibrated"]
    assert shown["adapter"] == {"safety": [0.2, 0.9], "helpfulness": [0.0, 0.8]}


@pytest.mark.parametrize(
    ("mode", "calibrate", "values"),
    [
        ("prompt+rerank", False, None),
        ("prompt+rerank", True, {"safety": 0.75, "helpfulness": 1.0}),
        ("adapter+rerank", False, {"safety": 0.5, "helpfulness": 1.0}),
        ("adapter+rerank", True, {"safety": 0.75, "helpfulness": 1.0}),
    ],
)
async def test_candidates_are_drawn_at_the_nearest_levels_and_not_around_them(
    runtime: Runtime, mode: str, calibrate: bool, values: dict[str, float] | None
) -> None:
    """0.6 is the mean score of control value 0.75, and 0.5 the trained level nearest to it."""
    selection = Selection(("selector@1",), calibrate=calibrate)
    app = create_app(replace(runtime, means=replace(runtime.means, selection=selection)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "control": {**DIALS, "mode": mode}}
        told = (await http.post("/v1/control/plan", json=body)).json()
    assert told["effective"] == DIALS
    assert told.get("control_values") == values
