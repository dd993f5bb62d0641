"""The clients on the real app: all routes, whole and streamed, and what the server refuses."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from rheostat import (
    AsyncClient,
    BadRequest,
    Client,
    Dials,
    InvalidValue,
    NoScorers,
    NotFound,
    OutsideEnvelope,
    RheostatError,
    StreamFailed,
)
from rheostat_server.adapters import AdapterStore
from rheostat_server.app import create_app
from rheostat_server.blending.store import BlendStore
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.policy import DialRange, Envelope
from rheostat_server.runtime import Runtime
from tests.engines.app_server import app_server
from tests.reranking.rigs import Rig
from tests.server.test_blend import blend


def on_app(runtime: Runtime) -> AsyncClient:
    transport = httpx.ASGITransport(create_app(runtime), raise_app_exceptions=False)
    return AsyncClient("http://test", transport=transport, retries=0)


async def test_an_answer_has_its_receipt_as_an_object() -> None:
    async with on_app(Rig().runtime()) as client:
        answer = await client.chat("Hello", dials={"safety": 0.9}, mode="prompt", max_tokens=5)
    assert answer.content
    assert (answer.finish_reason, answer.model) == ("length", "demo")
    assert answer.usage
    assert answer.usage.completion_tokens == 5
    receipt = answer.receipt
    assert (receipt.mode, receipt.requested, receipt.clamped) == ("prompt", Dials(safety=0.9), ())
    assert receipt.effective == Dials(0.9, 0.75)
    assert receipt.prompt_version
    assert receipt.timing_ms["total"] > 0
    assert (receipt.candidates, receipt.choice, receipt.scores, receipt.adapter) == (None, None, None, None)
    assert answer.request_id
    assert answer.message == {"role": "assistant", "content": answer.content}


async def test_a_reranked_answers_receipt_tells_candidates_choice_and_scores() -> None:
    async with on_app(Rig().runtime()) as client:
        answer = await client.chat("Hello", dials={"safety": 0.9}, mode="prompt+rerank", candidates=4)
    receipt = answer.receipt
    assert receipt.candidates
    assert (receipt.candidates.wanted, receipt.candidates.generated) == (4, 4)
    assert receipt.choice
    assert receipt.scores
    assert receipt.scores.safety is not None
    assert receipt.choice.left["safety"] == pytest.approx(abs(0.9 - receipt.scores.safety))
    assert receipt.scorers == ("talkative",)


async def test_what_was_clamped_is_told() -> None:
    envelope = Envelope(safety=DialRange(0.8, 1, 1))
    async with on_app(Rig(envelope=envelope).runtime()) as client:
        receipt = (await client.chat("Hello", dials={"safety": 0.1})).receipt
        limits = await client.control()
    assert (receipt.requested.safety, receipt.clamped) == (0.1, ("safety",))
    assert receipt.effective
    assert receipt.effective.safety == 0.8
    assert (limits.dials["safety"].min, limits.dials["safety"].locked, limits.outside) == (0.8, False, "clamp")


async def test_models_control_plan_score_and_sweep() -> None:
    async with on_app(Rig().runtime()) as client:
        assert (await client.models())[:2] == ["demo", "demo:strict"]
        limits = await client.control()
        plan = await client.plan("Hello", dials={"safety": 1}, mode="prompt")
        judged = await client.score("Hello", "amber")
        swept = await client.sweep("Hello", safety=[0, 1], helpfulness=[0.5], mode="prompt")
    assert "prompt+rerank" in limits.modes
    assert limits.reranking
    assert {*limits.presets} == {"strict", "balanced", "open"}
    assert (plan.engine, plan.receipt.mode, plan.receipt.timing_ms) == ("fake", "prompt", {})
    assert plan.engine_request["messages"][0]["role"] == "system"
    assert judged.scores.safety is not None
    assert judged.scorers[0].name == "talkative"
    assert [(point.safety, point.helpfulness) for point in swept.points] == [(0, 0.5), (1, 0.5)]
    assert all(point.scores and point.receipt and point.content and not point.error for point in swept.points)
    assert swept.usage


async def test_blends_are_listed_with_what_weighs_them() -> None:
    runtime = Rig().runtime()
    async with on_app(replace(runtime, means=replace(runtime.means, blends=BlendStore((blend(),))))) as client:
        (found,) = (await client.control()).blends
    assert (found.name, found.components, found.dials) == ("patches", ["safe", "help"], ["safety", "helpfulness"])
    assert found.levels == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("named", "kind", "param"),
    [
        ({"model": "other"}, NotFound, "model"),
        ({"preset": "other"}, NotFound, "control.preset"),
        ({"mode": "prompt"}, OutsideEnvelope, "control.mode"),
        ({"candidates": 2, "mode": "off"}, InvalidValue, "control.candidates"),
        ({"mode": "off", "extra_body": {"tools": 3}}, BadRequest, "tools"),
    ],
)
async def test_what_the_server_refuses_is_raised_as_what_it_is(
    named: dict[str, Any], kind: type[RheostatError], param: str
) -> None:
    envelope = Envelope(modes=("auto", "off"))
    async with on_app(Rig(envelope=envelope).runtime()) as client:
        with pytest.raises(kind) as raised:
            await client.chat("Hello", **named)
    assert (raised.value.param, bool(raised.value.request_id)) == (param, True)


def test_a_server_without_scorers_cannot_judge() -> None:
    with app_server(FakeEngine(("demo",)), AdapterStore()) as url, Client(url) as client:
        with pytest.raises(NoScorers):
            client.score("Hello", "Yes.")
        assert client.control().reranking is None
        assert client.sweep("Hello", safety=[0, 1], mode="prompt").points[0].scores is None


def test_a_stream_over_a_real_connection_comes_piece_by_piece(url: str, engine: FakeEngine) -> None:
    engine.orders = Orders(seconds_per_token=0.02)
    with Client(url) as client:
        with client.stream("Hello", mode="prompt", max_tokens=10) as stream:
            came = [(time.perf_counter(), piece) for piece in stream]
        assert stream.answer.content == "".join(piece for _, piece in came)
        assert (len(came), stream.receipt.mode) == (10, "prompt")
        assert stream.answer.usage
        assert stream.answer.usage.completion_tokens == 10
        assert came[-1][0] - came[0][0] > 0.1


def test_a_second_loop_goes_on_where_the_first_was_left(url: str, engine: FakeEngine) -> None:
    engine.words = 10
    with Client(url) as client, client.stream("Hello", mode="prompt", max_tokens=10) as stream:
        pieces = [next(stream)]
        for piece in stream:
            pieces.append(piece)
            break
        pieces.extend(stream)
        assert "".join(pieces) == stream.answer.content


def test_leaving_a_stream_frees_the_engine(url: str, engine: FakeEngine) -> None:
    engine.words, engine.orders = 400, Orders(seconds_per_token=0.05)
    with Client(url) as client:
        with client.stream("Hello", mode="prompt", max_tokens=400) as stream:
            assert next(iter(stream))
            assert engine.running == 1
        deadline = time.monotonic() + 5
        while engine.running and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.running == 0


async def test_leaving_an_asynchronous_stream_frees_the_engine(url: str, engine: FakeEngine) -> None:
    engine.words, engine.orders = 400, Orders(seconds_per_token=0.05)
    async with AsyncClient(url) as client:
        async with client.stream("Hello", mode="prompt", max_tokens=400) as stream:
            async for _ in stream:
                break
            assert engine.running == 1
        deadline = time.monotonic() + 5
        while engine.running and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert engine.running == 0


def test_a_stream_that_the_engine_fails_ends_with_its_error(url: str, engine: FakeEngine) -> None:
    engine.orders = Orders(fail_after=3)
    with (
        Client(url) as client,
        client.stream("Hello", mode="prompt") as stream,
        pytest.raises(StreamFailed, match="as it was told to") as raised,
    ):
        list(stream)
    assert raised.value.code == "engine_failed"


def test_points_of_a_sweep_come_as_they_are_reached(url: str) -> None:
    with Client(url) as client, client.sweep_stream("Hello", safety=[0, 0.5, 1], mode="prompt") as stream:
        points = list(stream)
    assert sorted(point.index for point in points) == [0, 1, 2]
    assert all(point.receipt and point.receipt.mode == "prompt" for point in points)
