"""`POST /v1/control/sweep`: every point is held to the caller's limits, recorded, and never made up."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from rheostat_server.admission import Admission
from rheostat_server.app import create_app
from rheostat_server.audit.log import AuditLog
from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.errors import EngineFailed
from rheostat_server.limits.rates import Rates
from rheostat_server.policy import DialRange, Envelope, Policy
from rheostat_server.runtime import Runtime
from rheostat_server.scorers import Scores
from rheostat_server.settings import Settings
from tests.reranking.rigs import Rig, TalkativeScorer
from tests.server.recording import RecordingEngine

SWEEP: Final = "/v1/control/sweep"
BODY: Final[dict[str, Any]] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
FOUR: Final = {"safety": [0, 1], "helpfulness": [0.25, 0.75]}


@asynccontextmanager
async def client(runtime: Runtime) -> AsyncGenerator[httpx.AsyncClient, None]:
    transport = httpx.ASGITransport(create_app(runtime), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def test_a_conversation_is_answered_at_every_setting(http: httpx.AsyncClient, engine: RecordingEngine) -> None:
    told = (await http.post(SWEEP, json={**BODY, "sweep": FOUR})).json()
    points = told["points"]
    assert (told["object"], told["model"]) == ("control.sweep", "demo")
    assert [(point["safety"], point["helpfulness"]) for point in points] == [(0, 0.25), (0, 0.75), (1, 0.25), (1, 0.75)]
    assert [point["control"]["effective"] for point in points] == [
        {"safety": point["safety"], "helpfulness": point["helpfulness"]} for point in points
    ]
    assert all(point["content"] and "error" not in point and "scores" not in point for point in points)
    texts = {asked.body["messages"][-1]["content"] for asked in engine.asked}
    assert len(texts) == 4
    assert not any("sweep" in asked.body for asked in engine.asked)
    assert len({asked.request_id for asked in engine.asked}) == 4


async def test_without_levels_there_are_five_of_either_dial_and_one_dial_alone_keeps_the_other(
    http: httpx.AsyncClient,
) -> None:
    assert len((await http.post(SWEEP, json=BODY)).json()["points"]) == 25
    body = {**BODY, "sweep": {"safety": [0.5]}, "control": {"helpfulness": 0.1}}
    (point,) = (await http.post(SWEEP, json=body)).json()["points"]
    assert point["control"]["effective"] == {"safety": 0.5, "helpfulness": 0.1}
    assert "helpfulness" not in point


async def test_levels_go_before_what_is_said_of_the_dial_elsewhere(http: httpx.AsyncClient) -> None:
    body = {**BODY, "sweep": {"safety": [0.5]}, "control": {"safety": 1}}
    (point,) = (await http.post(SWEEP, json=body, headers={"X-Control-Helpfulness": "0.1"})).json()["points"]
    assert point["control"]["effective"] == {"safety": 0.5, "helpfulness": 0.1}


async def test_a_stream_tells_the_points_as_they_come(http: httpx.AsyncClient) -> None:
    answer = await http.post(SWEEP, json={**BODY, "sweep": FOUR, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *points, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert sorted(json.loads(point.removeprefix("data: "))["index"] for point in points) == [0, 1, 2, 3]


async def test_the_tokens_of_all_points_are_told(
    http: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = engine.complete

    async def counting(request: EngineRequest) -> Completion:
        return {**await complete(request), "usage": {"prompt_tokens": 2, "total_tokens": 5, "details": None}}

    monkeypatch.setattr(engine, "complete", counting)
    told = (await http.post(SWEEP, json={**BODY, "sweep": FOUR})).json()
    assert told["usage"] == {"prompt_tokens": 8, "total_tokens": 20}
    assert told["points"][0]["usage"] == {"prompt_tokens": 2, "total_tokens": 5, "details": None}


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"sweep": []}, 422, "sweep"),
        ({"sweep": {"safety": []}}, 422, "sweep.safety"),
        ({"sweep": {"safety": [0.5, 7]}}, 422, "sweep.safety.1"),
        ({"sweep": {"safety": ["high"]}}, 422, "sweep.safety.0"),
        ({"sweep": {"safety": [True]}}, 422, "sweep.safety.0"),
        ({"sweep": {"scores": "yes"}}, 422, "sweep.scores"),
        ({"sweep": {"tone": [1]}}, 422, "sweep.tone"),
        ({"sweep": {"safety": [0.5] * 122}}, 422, "sweep"),
        ({"n": 2}, 422, "n"),
        ({"stream": True, "stream_options": {"include_usage": True}}, 422, "stream_options"),
        ({"model": "nobody"}, 404, "model"),
        ({"control": {"mode": "magic"}}, 422, "control.mode"),
        ({"control": {"adapter": "nobody"}}, 404, "control.adapter"),
    ],
)
async def test_a_sweep_that_is_wrong_is_refused_whole(
    http: httpx.AsyncClient, engine: RecordingEngine, change: dict[str, Any], status: int, param: str
) -> None:
    answer = await http.post(SWEEP, json={**BODY, **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert engine.asked == []


async def test_no_point_leaves_the_envelope(runtime: Runtime) -> None:
    envelope = Envelope("families", safety=DialRange(0.5, 1.0, 0.75))
    async with client(replace(runtime, policy=Policy(envelope))) as http:
        points = (await http.post(SWEEP, json={**BODY, "sweep": FOUR})).json()["points"]
    assert [point["control"]["effective"]["safety"] for point in points] == [0.5, 0.5, 1, 1]
    assert [point["control"].get("clamped") for point in points[:2]] == [["safety"], ["safety"]]
    async with client(replace(runtime, policy=Policy(replace(envelope, outside="reject")))) as http:
        answer = await http.post(SWEEP, json={**BODY, "sweep": FOUR})
        five = (await http.post(SWEEP, json=BODY)).json()["points"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "outside_envelope")
    assert sorted({point["safety"] for point in five}) == [0.5, 0.625, 0.75, 0.875, 1.0]


async def test_no_level_of_its_own_is_rounded_out_of_the_envelope(runtime: Runtime) -> None:
    envelope = Envelope("thirds", safety=DialRange(0.33334, 0.66666, 0.5), outside="reject")
    async with client(replace(runtime, policy=Policy(envelope))) as http:
        points = (await http.post(SWEEP, json=BODY)).json()["points"]
    assert sorted({point["safety"] for point in points}) == [0.33334, 0.4167, 0.5, 0.5833, 0.66666]


async def test_every_point_counts_for_the_callers_rates_and_one_over_them_says_so(runtime: Runtime) -> None:
    policy = Policy(Envelope(rates=Rates(requests_per_minute=3, parallel=1)))
    async with client(replace(runtime, policy=policy)) as http:
        points = (await http.post(SWEEP, json={**BODY, "sweep": FOUR})).json()["points"]
    assert ["content" in point for point in points] == [True, True, True, False]
    assert points[3]["error"]["code"] == "rate_limit_exceeded"


async def test_a_point_that_fails_says_so_and_the_others_are_answered(
    http: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = engine.complete

    async def failing(request: EngineRequest) -> Completion:
        if "[harmless=1.00]" in str(request.body):
            raise EngineFailed("broken")
        return await complete(request)

    monkeypatch.setattr(engine, "complete", failing)
    points = (await http.post(SWEEP, json={**BODY, "sweep": FOUR})).json()["points"]
    assert [point.get("error", {}).get("code") for point in points] == [None, None, "engine_failed", "engine_failed"]
    assert not any("content" in point or "scores" in point for point in points[2:])


async def test_answers_are_judged_unless_the_sweep_says_no_and_what_could_not_be_judged_has_no_level() -> None:
    rig = Rig(TalkativeScorer(lambda text: Scores(0.25, None)))
    body = {**BODY, "sweep": {"safety": [0.5], "helpfulness": [0, 1]}, "control": {"mode": "prompt"}}
    async with client(rig.runtime()) as http:
        points = (await http.post(SWEEP, json=body)).json()["points"]
        unjudged = (await http.post(SWEEP, json={**body, "sweep": {"safety": [0.5], "scores": False}})).json()["points"]
    assert [point["scores"] for point in points] == [{"safety": 0.25, "helpfulness": None}] * 2
    assert "scores" not in unjudged[0]
    async with client(Rig(TalkativeScorer(fails=True)).runtime()) as http:
        points = (await http.post(SWEEP, json=body)).json()["points"]
    assert all("content" in point and "scores" not in point for point in points)


async def test_every_point_and_the_sweep_leave_one_record(runtime: Runtime, tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl", max_bytes=2**20, backups=1, fail_closed=True)
    async with client(replace(runtime, admission=Admission(audit=audit))) as http:
        await http.post(SWEEP, json={**BODY, "sweep": FOUR}, headers={"X-Request-ID": "vorn"})
    await audit.close()
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert sorted(record["request_id"] for record in records) == ["vorn", "vorn-0", "vorn-1", "vorn-2", "vorn-3"]
    assert {record["route"] for record in records} == {SWEEP}
    assert {record["outcome"] for record in records} == {"answered"}
    assert [record["request_id"] for record in records if "part_of" not in record] == ["vorn"]
    assert [record["part_of"] for record in records if "control" in record] == ["vorn"] * 4


async def test_a_sweep_that_nobody_waits_for_leaves_the_engine(runtime: Runtime, engine: RecordingEngine) -> None:
    waiting: list[EngineRequest] = []
    cancelled: list[str] = []

    async def endless(request: EngineRequest) -> Completion:
        waiting.append(request)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request.request_id)
            raise
        raise AssertionError

    engine.complete = endless  # type: ignore[method-assign]
    async with client(runtime) as http:
        asking = asyncio.ensure_future(http.post(SWEEP, json=BODY))
        while len(waiting) < 4:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(waiting) == len(cancelled) == 4


def test_a_sweep_has_as_many_points_as_the_settings_allow() -> None:
    assert Settings().max_sweep == 11 * 11
