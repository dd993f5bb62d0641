"""The mode `blend` on the wire: what is served is the grid's, within the caller's envelope, and the receipt says so."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rheostat_server.adapters import AdapterStore
from rheostat_server.app import create_app
from rheostat_server.blending.rack import Rack
from rheostat_server.blending.store import Blend, BlendStore
from rheostat_server.contract.blend import BlendManifest
from rheostat_server.contract.control_text import DEFAULT_TEMPLATE
from rheostat_server.contract.wordings import default_wordings
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.engines.plain_lora import PlainLora
from rheostat_server.plan import Means, Selection
from rheostat_server.policy import DialRange, Envelope, Policy
from rheostat_server.runtime import Runtime
from rheostat_server.settings import Settings
from tests.server.recording import DIGEST, RecordingEngine
from tests.waiting import until_it_is

SAFE = {"dial": "safety", "points": [[0, 0], [1, 1]]}
HELP = {"dial": "helpfulness", "points": [[0, 0], [1, 0.5]]}
Server = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


def blend(name: str = "patches", **fields: Any) -> Blend:
    components = [
        {"name": each, "folder": each, "weights_digest": DIGEST, "weight": weight}
        for each, weight in (("safe", SAFE), ("help", HELP))
    ]
    base = {"name": "demo", "digest": DIGEST}
    training = {"method": "midpo", "data_digests": {}}
    told = {"name": name, "base_model": base, "components": components, "training": training, "licence": "MIT"}
    manifest = BlendManifest.model_validate({**told, **fields})
    lora = PlainLora({"layer": 1}, {"layer": 1.0}, {"layer": (2, 2)})
    return Blend(f"{name}@0123", manifest, {each.name: (Path(each.folder), lora) for each in manifest.components})


@pytest.fixture
def server(runtime: Runtime, engine: RecordingEngine) -> Server:
    """The app with a blend, or those that are given."""

    @asynccontextmanager
    async def serving(*blends: Blend, **parts: Any) -> AsyncGenerator[httpx.AsyncClient, None]:
        means = replace(runtime.means, blends=BlendStore(blends or (blend(),)))
        app = create_app(replace(runtime, **{"means": means, "rack": Rack(engine, 25), **parts}))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            yield http

    return serving


def body(text: str = "Hi", /, **control: Any) -> dict[str, Any]:
    asked = {"mode": "blend", "safety": 0.6, "helpfulness": 1, **control}
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "control": asked}


async def ask(http: httpx.AsyncClient, asked: dict[str, Any], path: str = "/v1/chat/completions") -> dict[str, Any]:
    answer = await http.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def refused(http: httpx.AsyncClient, asked: dict[str, Any]) -> tuple[int, str, str]:
    answer = await http.post("/v1/chat/completions", json=asked)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


async def test_the_receipt_tells_the_weights_and_the_grid_point(server: Server, engine: RecordingEngine) -> None:
    async with server() as http:
        receipt = (await ask(http, body()))["control"]
    assert receipt["mode"] == "blend"
    assert receipt["blend"] == {"safe": 0.5, "help": 0.5}
    assert receipt["effective"] == {"safety": 0.6, "helpfulness": 1.0}
    assert receipt["control_values"] == {"safety": 0.5, "helpfulness": 1.0}
    assert receipt["adapter"].startswith("patches@")
    assert receipt["timing_ms"]["plan"] <= receipt["timing_ms"]["blend"] <= receipt["timing_ms"]["total"]
    assert engine.asked[0].body["model"] == receipt["adapter"]
    assert [(part.folder.name, part.weight) for part in engine.blends[receipt["adapter"]]] == [
        ("safe", 0.5),
        ("help", 0.5),
    ]
    assert engine.asked[0].body["messages"] == [{"role": "user", "content": "Hi"}]


async def test_a_dry_run_tells_the_same_and_loads_nothing(server: Server, engine: RecordingEngine) -> None:
    async with server() as http:
        planned = await ask(http, body(), "/v1/control/plan")
        assert engine.blends == {}
        receipt = (await ask(http, body()))["control"]
    shared = ("effective", "mode", "adapter", "blend", "control_values")
    assert [planned[part] for part in shared] == [receipt[part] for part in shared]
    assert planned["engine_request"]["model"] == receipt["adapter"]


async def test_where_all_weights_are_0_the_base_model_answers(server: Server, engine: RecordingEngine) -> None:
    async with server() as http:
        receipt = (await ask(http, body(safety=0, helpfulness=0)))["control"]
    assert receipt["blend"] == {"safe": 0.0, "help": 0.0}
    assert receipt["adapter"].startswith("patches@")
    assert "blend" not in receipt["timing_ms"]
    assert (engine.asked[0].body["model"], engine.blends) == ("demo", {})


async def test_at_a_floor_only_what_lies_above_it_is_served(server: Server) -> None:
    floor = Policy(Envelope(safety=DialRange(0.6, 1.0, 0.75)))
    async with server(policy=floor) as http:
        receipts = [(await ask(http, body(safety=dial / 10)))["control"] for dial in range(11)]
    assert {receipt["control_values"]["safety"] for receipt in receipts} == {0.75, 1.0}
    assert {receipt["blend"]["safe"] for receipt in receipts} == {0.75, 1.0}
    assert receipts[0]["effective"]["safety"] == 0.6


@pytest.mark.parametrize("field", ["weights", "blend", "components"])
async def test_no_request_sets_a_weight(server: Server, engine: RecordingEngine, field: str) -> None:
    async with server() as http:
        status, code, _ = await refused(http, body(**{field: {"safe": -2}}))
    assert (status, code, engine.asked) == (422, "invalid_value", [])


async def test_engines_own_choice_of_adapters_is_refused(server: Server, engine: RecordingEngine) -> None:
    async with server() as http:
        status, code, _ = await refused(http, {**body(), "lora_request": {"name": "other"}})
    assert (status, code, engine.asked) == (422, "invalid_value", [])


async def test_a_blend_may_be_named_and_an_unknown_one_is_not_found(server: Server, engine: RecordingEngine) -> None:
    async with server(blend(), blend("second")) as http:
        assert (await ask(http, body(adapter="second")))["control"]["adapter"].startswith("second@")
        assert (await ask(http, body(adapter="second@0123", mode="auto")))["control"]["mode"] == "blend"
        status, code, message = await refused(http, body(adapter="third"))
    assert (status, code) == (404, "adapter_not_found")
    assert "Unknown blend 'third'; known blends: patches@0123, second@0123" in message


async def test_auto_tells_adapters_and_blends_where_a_name_is_neither(server: Server, runtime: Runtime) -> None:
    async with server() as http:
        status, code, message = await refused(http, body(adapter="third", mode="auto"))
    assert (status, code) == (404, "adapter_not_found")
    assert f"known adapters: {', '.join(runtime.means.adapters.ids)}, patches@0123." in message


async def test_blends_are_permitted_by_name_as_adapters_are(server: Server) -> None:
    policy = Policy(Envelope("lab", adapters=("second",)))
    async with server(blend(), blend("second"), policy=policy) as http:
        assert (await ask(http, body()))["control"]["adapter"].startswith("second@")
        assert (await refused(http, body(adapter="patches")))[:2] == (403, "outside_envelope")
        told = (await http.get("/v1/control")).json()
    assert [one["name"] for one in told["blends"]] == ["second"]
    assert ("blend" in told["modes"], "adapter" in told["modes"]) == (True, False)


async def test_auto_takes_an_adapter_before_a_blend_and_a_blend_before_prompting(
    server: Server, runtime: Runtime
) -> None:
    asked = body(mode="auto")
    async with server() as http:
        assert (await ask(http, asked))["control"]["mode"] == "adapter"
    bare = replace(runtime.means, adapters=AdapterStore(), blends=BlendStore((blend(),)))
    async with server(means=bare) as http:
        assert (await ask(http, asked))["control"]["mode"] == "blend"
    prompting = Policy(Envelope(modes=("auto", "prompt")))
    async with server(means=bare, policy=prompting) as http:
        assert (await ask(http, asked))["control"]["mode"] == "prompt"


async def test_without_a_blend_the_mode_is_neither_offered_nor_run(http: httpx.AsyncClient) -> None:
    told = (await http.get("/v1/control")).json()
    assert "blend" not in told["modes"]
    assert "blends" not in told
    status, _, message = await refused(http, body())
    assert status == 422
    assert "start the server with --blend" in message


async def test_control_tells_what_a_blend_is_made_of(server: Server) -> None:
    async with server() as http:
        told = (await http.get("/v1/control")).json()
    assert "blend" in told["modes"]
    assert told["blends"] == [
        {"id": "patches@0123", "name": "patches", "base_model": "demo", "components": ["safe", "help"],
         "dials": ["safety", "helpfulness"], "levels": [0, 0.25, 0.5, 0.75, 1]}
    ]  # fmt: skip


async def test_a_control_text_is_written_for_the_grid_point_and_the_callers_own_is_made_neutral(
    server: Server, engine: RecordingEngine
) -> None:
    combined = blend(control_text={"template": DEFAULT_TEMPLATE})
    async with server(combined) as http:
        receipt = (await ask(http, body("Hi [helpful=1.00][harmless=0.00]")))["control"]
    assert receipt["control_text"] == "[helpful=1.00][harmless=0.50]"
    assert receipt["neutralised"] == 1
    said = engine.asked[0].body["messages"][-1]["content"]
    assert said.endswith(" [helpful=1.00][harmless=0.50]")
    assert "[harmless=0.00]" not in said


async def test_a_blend_that_obeys_control_text_needs_a_user_message(server: Server) -> None:
    combined = blend(control_text={"template": DEFAULT_TEMPLATE})
    async with server(combined) as http:
        asked = {**body(), "messages": [{"role": "system", "content": "Hi"}]}
        assert (await refused(http, asked))[:2] == (422, "invalid_value")


async def test_candidates_can_be_drawn_by_a_blend(server: Server, runtime: Runtime) -> None:
    means = replace(runtime.means, blends=BlendStore((blend(),)), selection=Selection(("selector@1",)))
    async with server(means=means) as http:
        planned = await ask(http, body(mode="blend+rerank", adapter="patches"), "/v1/control/plan")
        assert "blend+rerank" in (await http.get("/v1/control")).json()["modes"]
    assert planned["blend"] == {"safe": 0.5, "help": 0.5}
    assert planned["candidates"] == {"wanted": 8}


async def test_a_sweep_goes_through_the_blends_of_its_points(server: Server, engine: RecordingEngine) -> None:
    asked = {**body(), "sweep": {"safety": [0, 0.5, 1], "helpfulness": [1], "scores": False}}
    async with server() as http:
        told = await ask(http, asked, "/v1/control/sweep")
    assert [point["control"]["blend"]["safe"] for point in told["points"]] == [0.0, 0.5, 1.0]
    assert len(engine.blends) == 3


@pytest.fixture
def crowded() -> tuple[FakeEngine, Runtime]:
    """An engine with room for one blend, whose answers take a while."""
    engine = FakeEngine(("demo",), orders=Orders(seconds_per_token=0.02), blend_room=1)
    means = Means(AdapterStore(), default_wordings(), blends=BlendStore((blend(),)))
    return engine, Runtime(engine=engine, means=means, rack=Rack(engine, 1, 0.02))


@asynccontextmanager
async def client_of(runtime: Runtime) -> AsyncGenerator[httpx.AsyncClient, None]:
    transport = httpx.ASGITransport(create_app(runtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def test_a_request_for_which_there_is_no_room_is_refused_until_there_is(
    crowded: tuple[FakeEngine, Runtime],
) -> None:
    engine, runtime = crowded
    async with client_of(runtime) as http:
        first = asyncio.create_task(ask(http, body(safety=1)))
        await until_it_is(lambda: engine.running == 1)
        second = await http.post("/v1/chat/completions", json=body(safety=0.5))
        assert (second.status_code, second.json()["error"]["code"]) == (503, "no_blend_free")
        assert second.headers["retry-after"] == "1"
        await first
        await ask(http, body(safety=0.5))
    assert len(engine.blends) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_that_hangs_up_leaves_its_blend_free(
    crowded: tuple[FakeEngine, Runtime], streamed: bool
) -> None:
    engine, runtime = crowded
    async with client_of(runtime) as http:
        leaving = asyncio.create_task(http.post("/v1/chat/completions", json={**body(safety=1), "stream": streamed}))
        await until_it_is(lambda: engine.running == 1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        answer = await ask(http, body(safety=0.5))
    assert list(engine.blends) == [answer["control"]["adapter"]]


async def test_a_stream_holds_its_blend_to_its_end_and_tells_it(crowded: tuple[FakeEngine, Runtime]) -> None:
    engine, runtime = crowded
    async with client_of(runtime) as http:
        streaming = asyncio.create_task(http.post("/v1/chat/completions", json={**body(safety=1), "stream": True}))
        await until_it_is(lambda: engine.running == 1)
        assert (await refused(http, body(safety=0.5)))[1] == "no_blend_free"
        events = (await streaming).text.split("\n\n")
    assert json.loads(events[-3].removeprefix("data: "))["control"]["blend"] == {"safe": 1.0, "help": 0.5}
    assert runtime.rack is not None
    assert len(runtime.rack.loaded) == 1


async def test_a_blend_that_cannot_be_loaded_is_an_error_and_never_an_answer(
    crowded: tuple[FakeEngine, Runtime],
) -> None:
    engine, runtime = crowded
    engine.orders = Orders(fails_to_load=True)
    async with client_of(runtime) as http:
        assert (await refused(http, body()))[:2] == (502, "engine_failed")
        assert engine.asked == []
        engine.orders = Orders()
        await ask(http, body())


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_load_takes_no_longer_than_an_answer_may(crowded: tuple[FakeEngine, Runtime], streamed: bool) -> None:
    engine, runtime = crowded
    engine.orders = Orders(seconds_per_load=0.6)
    limited = replace(runtime, settings=Settings(request_seconds=0.2))
    async with client_of(limited) as http:
        assert (await refused(http, {**body(), "stream": streamed}))[:2] == (504, "request_timeout")
        assert engine.asked == []
        await until_it_is(lambda: bool(engine.blends))
        engine.orders = Orders()
        await ask(http, body())
    assert len(engine.blends) == 1, "the load went on, and serves the next request"


async def test_a_load_that_sticks_is_an_error_of_ours(crowded: tuple[FakeEngine, Runtime]) -> None:
    engine, runtime = crowded
    engine.orders = Orders(seconds_per_load=600)
    async with client_of(replace(runtime, rack=Rack(engine, 1, 0.02, longest=0.02))) as http:
        assert (await refused(http, body()))[:2] == (503, "engine_unavailable")
    assert engine.asked == []
