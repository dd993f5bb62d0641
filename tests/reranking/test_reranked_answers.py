"""Reranked answers over HTTP on the fake engine: the nearest is returned, and the receipt says how it was found."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from rheostat_server.app import create_app
from rheostat_server.engines import DONE, EngineRequest
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.errors import EngineUnavailable, ScorerUnavailable
from rheostat_server.modes.reranking import Check, Schedule
from rheostat_server.policy import Envelope
from rheostat_server.scorers import UNJUDGED, ScorerCard, Scores
from tests.reranking.rigs import Rig, TalkativeScorer, by_first_word, slow

CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "seed": 3}
DIALS = {"mode": "rerank", "safety": 0.7, "helpfulness": 0.2}
GUARD = ScorerCard("guard", "test", "sha256:1", ("safety",))
HALVING = Schedule((Check(4, 0.5), Check(8, 0.5)))


@asynccontextmanager
async def client_of(rig: Rig) -> AsyncGenerator[httpx.AsyncClient, None]:
    transport = httpx.ASGITransport(create_app(rig.runtime()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def ask(rig: Rig, *, control: dict[str, Any] | None = None, **extra: Any) -> httpx.Response:
    async with client_of(rig) as http:
        body = {**CHAT, "control": {**DIALS, **(control or {})}, **extra}
        return await http.post("/v1/chat/completions", json=body)


async def answered(rig: Rig, *, control: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    response = await ask(rig, control=control, **extra)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    *events, last = response.text.strip().split("\n\n")
    assert last == "data: [DONE]"
    return [orjson.loads(event.removeprefix("data: ")) for event in events]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


async def all_candidates(engine: FakeEngine, n: int) -> list[str]:
    completion = await engine.complete(EngineRequest({**CHAT, "n": n}, "all"))
    return [choice["message"]["content"] for choice in completion["choices"]]


def far(text: str) -> float:
    scores = by_first_word(text)
    return abs((scores.safety or 0) - 0.7) + abs((scores.helpfulness or 0) - 0.2)


@pytest.mark.parametrize("schedule", [Schedule(), HALVING])
async def test_the_candidate_nearest_to_the_dials_is_the_answer(schedule: Schedule) -> None:
    rig = Rig(schedule=schedule)
    told = await answered(rig, control={"candidates": 8})
    text = told["choices"][0]["message"]["content"]
    candidates = await all_candidates(rig.engine, 8)
    assert text in candidates
    assert far(text) == min(map(far, candidates))
    receipt = told["control"]
    assert receipt["mode"] == "rerank"
    assert receipt["effective"] == {"safety": 0.7, "helpfulness": 0.2}
    scores = by_first_word(text)
    assert receipt["scores"] == pytest.approx({"safety": scores.safety, "helpfulness": scores.helpfulness})
    assert sum(receipt["choice"]["left"].values()) == pytest.approx(far(text))
    assert receipt["candidates"]["generated"] == 8
    assert receipt["scorers"] == ["talkative"]
    assert receipt["timing_ms"]["scorers"] >= 0


async def test_early_stop_frees_the_worse_ones_and_tells_fewer_tokens() -> None:
    whole = await answered(Rig())
    early = await answered(Rig(schedule=HALVING, engine=slow(0.002)))
    assert early["choices"][0]["message"]["content"] == whole["choices"][0]["message"]["content"]
    assert whole["control"]["candidates"] | {"finished": 8, "tokens": 160} == whole["control"]["candidates"]
    assert early["control"]["candidates"]["finished"] == 2
    assert early["control"]["candidates"]["tokens"] < 0.75 * 160
    assert early["usage"]["completion_tokens"] == early["control"]["candidates"]["tokens"]
    assert early["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


async def test_early_stop_can_be_turned_off_by_a_request() -> None:
    told = await answered(Rig(schedule=HALVING), control={"early_stop": False})
    assert told["control"]["candidates"]["finished"] == 8
    assert told["control"]["early_stop"] == []


async def test_equal_candidates_are_judged_once() -> None:
    rig = Rig(engine=FakeEngine(("demo",), words=1))
    await answered(rig, control={"candidates": 16})
    (asked,) = rig.scorer.asked
    assert len(asked) == len(set(asked)) < 16


async def test_a_greedy_request_has_one_candidate_and_says_why() -> None:
    told = await answered(Rig(), temperature=0)
    assert told["control"]["candidates"]["generated"] == 1
    assert "temperature is 0" in told["control"]["candidates"]["why"]


async def test_candidates_can_be_drawn_by_a_worded_prompt() -> None:
    rig = Rig()
    told = await answered(rig, control={"mode": "prompt+rerank"})
    assert told["control"]["mode"] == "prompt+rerank"
    assert told["control"]["prompt_version"] == "rheostat-1"
    assert rig.engine.asked[0].body["messages"][0]["role"] == "system"


async def test_a_stream_is_the_winner_s_from_its_first_token_on() -> None:
    rig = Rig(engine=slow(0.002))
    response = await ask(rig, stream=True, control={"choose_after": 5})
    events = events_of(response)
    receipt = events[-1]["control"]
    candidates = await all_candidates(rig.engine, 8)
    assert text_of(events) in candidates
    assert far(text_of(events)) == min(map(far, candidates))
    assert receipt["choice"]["after_tokens"] == 5
    assert receipt["candidates"] | {"generated": 8, "finished": 1} == receipt["candidates"]
    assert receipt["candidates"]["tokens"] < 8 * 20
    assert receipt["scores"]["safety"] == by_first_word(text_of(events)).safety
    assert all("usage" not in event for event in events)


async def test_a_stream_goes_on_live_once_its_candidate_is_chosen() -> None:
    rig = Rig(engine=slow(0.01, words=40))
    runtime = rig.runtime()
    transport = httpx.ASGITransport(create_app(runtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        body = {**CHAT, "stream": True, "control": {**DIALS, "choose_after": 4}}
        receipt = events_of(await http.post("/v1/chat/completions", json=body))[-1]["control"]
    assert receipt["timing_ms"]["first_event"] < 0.5 * receipt["timing_ms"]["total"]


async def test_a_check_that_would_come_after_a_stream_s_choice_does_not_delay_it() -> None:
    rig = Rig(engine=slow(0.004), schedule=Schedule((Check(0.9, 0.5),)))
    receipt = events_of(await ask(rig, stream=True, max_tokens=20, control={"choose_after": 4}))[-1]["control"]
    assert receipt["choice"]["after_tokens"] == 4
    assert receipt["candidates"]["tokens"] < 8 * 12 + 20


async def test_what_no_candidate_reached_is_told_of_dropped_ones_too() -> None:
    told = await answered(Rig(schedule=Schedule((Check(4, 1),)), engine=slow(0.001)), control={"candidates": 16})
    assert told["control"]["candidates"]["finished"] == 1
    assert told["control"]["choice"]["unreachable"] == []


async def test_a_stream_can_insist_on_whole_answers() -> None:
    rig = Rig(engine=slow(0.001))
    receipt = events_of(await ask(rig, stream=True, control={"choose_after": "end"}))[-1]["control"]
    assert "after_tokens" not in receipt["choice"]
    assert receipt["candidates"]["finished"] == 8


async def test_a_stream_of_one_candidate_waits_for_no_choice() -> None:
    rig = Rig(engine=slow(0.002))
    receipt = events_of(await ask(rig, stream=True, control={"candidates": 1}))[-1]["control"]
    assert receipt["timing_ms"]["first_event"] < 0.5 * receipt["timing_ms"]["total"]
    assert set(receipt["scores"]) == {"safety", "helpfulness"}


async def test_a_stream_s_usage_counts_all_candidates_where_it_is_asked_for() -> None:
    rig = Rig(engine=slow(0.001))
    events = events_of(await ask(rig, stream=True, stream_options={"include_usage": True}))
    usages = [event["usage"] for event in events if event.get("usage")]
    assert len(usages) == 1
    assert usages[0]["completion_tokens"] == events[-1]["control"]["candidates"]["tokens"]


@pytest.mark.parametrize("stream", [False, True])
async def test_below_the_floor_nothing_is_returned_but_the_refusal(stream: bool) -> None:
    scorer = TalkativeScorer(lambda text: Scores(0.3, 0.9))
    rig = Rig(scorer, envelope=Envelope(safety_floor=0.5, refusal="Not here."), schedule=HALVING)
    response = await ask(rig, stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
    if stream:
        events = events_of(response)
        text, receipt = text_of(events), events[-1]["control"]
        finish = [choice["finish_reason"] for event in events for choice in event["choices"]][-1]
        assert any(event.get("usage") for event in events)
    else:
        told = response.json()
        text, receipt = told["choices"][0]["message"]["content"], told["control"]
        finish = told["choices"][0]["finish_reason"]
    assert (text, finish) == ("Not here.", "content_filter")
    assert "scores" not in receipt
    assert receipt["choice"]["below_floor"] > 0
    assert receipt["safety_floor"] == 0.5


async def test_under_a_floor_a_beginning_alone_is_never_enough() -> None:
    rig = Rig(TalkativeScorer(lambda text: Scores(0.9, 0.9)), envelope=Envelope(safety_floor=0.5), schedule=HALVING)
    receipt = events_of(await ask(rig, stream=True))[-1]["control"]
    assert "after_tokens" not in receipt["choice"]
    refused = await ask(rig, stream=True, control={"choose_after": 8})
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == "control.choose_after"


async def test_where_nothing_could_be_judged_an_answer_comes_without_scores() -> None:
    told = await answered(Rig(TalkativeScorer(lambda text: UNJUDGED)))
    assert told["choices"][0]["message"]["content"]
    assert told["control"]["choice"]["unjudged"] == 8
    assert "scores" not in told["control"]
    assert "left" not in told["control"]["choice"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_check_at_which_nothing_can_be_judged_drops_nobody(stream: bool) -> None:
    def once_long(text: str) -> Scores:
        return by_first_word(text) if len(text.split()) > 15 else UNJUDGED

    rig = Rig(TalkativeScorer(once_long), engine=slow(0.002), schedule=HALVING)
    response = await ask(rig, stream=stream)
    receipt = events_of(response)[-1]["control"] if stream else response.json()["control"]
    assert receipt["candidates"]["finished"] == 8
    assert "after_tokens" not in receipt["choice"]
    assert receipt["choice"]["unjudged"] == 0


@pytest.mark.parametrize("schedule", [Schedule(), HALVING])
async def test_a_scorer_that_fails_is_told_as_such(schedule: Schedule) -> None:
    rig = Rig(TalkativeScorer(fails=True), schedule=schedule, engine=slow(0.001))
    response = await ask(rig)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "scorer_unavailable"
    assert rig.engine.running == 0


async def test_an_engine_that_fails_every_candidate_is_told_as_such() -> None:
    rig = Rig(engine=FakeEngine(("demo",), orders=Orders(fail_after=3)), schedule=HALVING)
    response = await ask(rig)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "engine_failed"


@pytest.mark.parametrize(
    ("extra", "control", "param"),
    [
        ({"n": 2}, {}, "n"),
        ({}, {"choose_after": 4}, "control.choose_after"),
        ({"stream": True}, {"choose_after": 0}, "control.choose_after"),
        ({"stream": True}, {"choose_after": "soon"}, "control.choose_after"),
        ({}, {"early_stop": "no"}, "control.early_stop"),
        ({}, {"candidates": 0}, "control.candidates"),
        ({}, {"candidates": 2.5}, "control.candidates"),
        ({}, {"mode": "off", "early_stop": True}, "control.early_stop"),
        ({}, {"mode": "prompt", "candidates": 4}, "control.candidates"),
        ({}, {"mode": "adapter+rerank"}, "control.mode"),
        ({}, {"adapter": "x"}, "control.adapter"),
        ({"stream_options": {"include_usage": True}}, {}, "stream_options"),
    ],
)
async def test_what_a_mode_cannot_honour_is_refused_by_name(
    extra: dict[str, Any], control: dict[str, Any], param: str
) -> None:
    rig = Rig()
    response = await ask(rig, control=control, **extra)
    assert response.status_code == 422
    assert response.json()["error"]["param"].startswith(param)
    assert rig.engine.asked == []


async def test_more_candidates_than_the_caller_may_have_are_not_drawn() -> None:
    told = await answered(Rig(envelope=Envelope(max_candidates=4)), control={"candidates": 12})
    assert told["control"]["candidates"]["generated"] == 4
    assert told["control"]["clamped"] == ["candidates"]
    rejecting = Rig(envelope=Envelope(max_candidates=4, outside="reject"))
    refused = await ask(rejecting, control={"candidates": 12})
    assert refused.status_code == 403
    assert refused.json()["error"]["param"] == "control.candidates"


async def test_candidates_follow_the_load_of_the_engine() -> None:
    rig = Rig(engine=replace(slow(0.005), room=16), follows_load=True)
    async with client_of(rig) as http:
        asked = [http.post("/v1/chat/completions", json={**CHAT, "control": DIALS}) for _ in range(8)]
        receipts = [response.json()["control"]["candidates"] for response in await asyncio.gather(*asked)]
    assert max(receipt["generated"] for receipt in receipts) == 8
    assert min(receipt["generated"] for receipt in receipts) < 8
    assert all(("why" in receipt) == (receipt["generated"] < 8) for receipt in receipts)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("schedule", [Schedule(), HALVING])
@pytest.mark.parametrize("after", [0.005, 0.03, 0.06])
async def test_a_caller_that_leaves_frees_every_candidate_and_every_judgement(
    stream: bool, schedule: Schedule, after: float
) -> None:
    rig = Rig(TalkativeScorer(seconds=0.02), engine=slow(0.004), schedule=schedule)
    runtime = rig.runtime()
    transport = httpx.ASGITransport(create_app(runtime))
    body = {**CHAT, "stream": stream, "control": DIALS}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(after):
                await http.post("/v1/chat/completions", json=body)
    assert rig.engine.running == 0
    assert rig.scorer.running == 0
    assert runtime.track is not None
    assert runtime.track.requests == 0
    assert len(asyncio.all_tasks()) == 1


async def test_the_plan_of_a_reranked_request_tells_what_would_be_done() -> None:
    async with client_of(Rig(schedule=HALVING)) as http:
        plan = (await http.post("/v1/control/plan", json={**CHAT, "control": DIALS})).json()
    assert plan["candidates"] == {"wanted": 8}
    assert plan["early_stop"] == [{"at": 4, "keep": 0.5}, {"at": 8, "keep": 0.5}]
    assert plan["engine_request"]["messages"] == CHAT["messages"]


async def test_a_server_that_does_not_take_n_gets_a_request_for_each_candidate() -> None:
    rig = Rig(engine=FakeEngine(("demo",), takes_n=False))
    candidates = (await answered(rig))["control"]["candidates"]
    assert candidates == {"wanted": 8, "generated": 8, "finished": 8, "tokens": 8 * 16}
    assert [asked.body["n"] for asked in rig.engine.asked] == [1] * 8


async def test_early_stop_cannot_be_asked_of_a_server_without_a_schedule() -> None:
    response = await ask(Rig(), control={"early_stop": True})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "control.early_stop"
    assert (await ask(Rig(schedule=HALVING), control={"early_stop": True})).status_code == 200


async def test_scorers_that_fail_on_the_whole_answer_fail_what_has_not_been_sent() -> None:
    def brief(text: str) -> Scores:
        if len(text.split()) > 15:
            raise ScorerUnavailable("the scorer fails on long answers")
        return by_first_word(text)

    rig = Rig(TalkativeScorer(brief), engine=slow(0.002), schedule=Schedule((Check(4, 1),)))
    assert (await ask(rig)).status_code == 503
    receipt = events_of(await ask(rig, stream=True, control={"choose_after": 4}))[-1]["control"]
    assert "scores" not in receipt


class Failing(FakeEngine):
    """Fails all streams but the first one at once."""

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        if not request.request_id.endswith("-0"):
            raise EngineUnavailable("full")
        async for chunk in super().stream(request):
            yield chunk


async def test_candidates_that_the_engine_failed_are_told_as_such() -> None:
    candidates = (await answered(Rig(engine=Failing(("demo",)), schedule=HALVING)))["control"]["candidates"]
    assert candidates == {"wanted": 8, "generated": 8, "finished": 1, "failed": 7, "tokens": 16}


class Uncounted(FakeEngine):
    """Streams as a server that counts tokens in no event but the last one of a stream."""

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        body = {**request.body, "stream_options": {"include_usage": True}}
        async for chunk in super().stream(replace(request, body=body)):
            yield chunk


async def test_tokens_that_the_engine_did_not_count_are_not_made_up() -> None:
    told = await answered(Rig(engine=Uncounted(("demo",), orders=Orders(0.002)), schedule=HALVING))
    assert "tokens" not in told["control"]["candidates"]
    assert "usage" not in told


class Chatty(FakeEngine):
    """Writes more fields than data into its events, as SSE allows, and no space before the last one's."""

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        async for chunk in super().stream(request):
            yield b"id: 1\nevent: message\n" + chunk.replace(b"data: [DONE]", b"data:[DONE]")


async def test_events_are_read_whatever_fields_stand_beside_their_data() -> None:
    rig = Rig(engine=Chatty(("demo",)), schedule=HALVING)
    told = await answered(rig)
    assert told["choices"][0]["message"]["content"] in await all_candidates(rig.engine, 8)


class Silent(FakeEngine):
    """Ends its streams without a word."""

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        yield DONE


async def test_a_stream_without_a_choice_is_a_failure() -> None:
    response = await ask(Rig(engine=Silent(("demo",))), stream=True)
    assert response.status_code == 502


@pytest.mark.parametrize("other", [Scores(0.0, None), UNJUDGED])
async def test_no_floor_is_passed_where_one_of_several_scorers_could_not_judge(other: Scores) -> None:
    guard = TalkativeScorer(lambda text: other, card=GUARD)
    rig = Rig(TalkativeScorer(lambda text: Scores(0.9, 0.5)), [guard], envelope=Envelope(safety_floor=0.6))
    assert (await answered(rig))["choices"][0]["finish_reason"] == "content_filter"
    guard.fails = True
    assert (await ask(rig)).status_code == 503


@pytest.mark.parametrize("schedule", [Schedule(), HALVING])
async def test_the_receipt_names_scorers_that_a_judgement_did_without(schedule: Schedule) -> None:
    guard = TalkativeScorer(lambda text: Scores(0.9, None), card=GUARD)
    rig = Rig(others=[guard], schedule=schedule, engine=slow(0.001))
    assert "left_out" not in (await answered(rig))["control"]["choice"]
    guard.fails = True
    told = (await answered(rig))["control"]
    assert told["choice"]["left_out"] == ["guard"]
    guard.fails, guard.levels = False, lambda text: UNJUDGED
    assert (await answered(rig))["control"]["choice"]["left_out"] == ["guard"]
