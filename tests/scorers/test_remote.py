"""Judges on other servers, over a server that answers as a test writes it."""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter, ValidationError

from rheostat_server.errors import ScorerUnavailable
from rheostat_server.scorers import UNJUDGED, Dialogue, Scores
from rheostat_server.scorers.remote import Remote, build_remote
from rheostat_server.scorers.spec.common import ScorersError
from rheostat_server.scorers.spec.remote import AnyRemoteSpec
from tests.engines.remote.scripted import Answer, Asked, Scripted, error, http, json, scripted

SPEC: TypeAdapter[AnyRemoteSpec] = TypeAdapter(AnyRemoteSpec)
ASKED = [{"role": "user", "content": "How do I dry vorn powder?"}]
DIALOGUES = [Dialogue(ASKED, answer) for answer in ("In the sun.", "I will not say.", "Ask at the shop.")]
CLASSIFY = {"api": "classify", "labels": {"safety": 0}}
SCORE = {"api": "score", "dial": "helpfulness"}
CHAT = {"api": "chat"}


def spec(fields: Mapping[str, Any], url: str = "http://127.0.0.1:1", **more: Any) -> AnyRemoteSpec:
    return SPEC.validate_python({"kind": "remote", "url": url, "model": "judge", **fields, **more})


@asynccontextmanager
async def judging(
    answers: Mapping[str, Answer], fields: Mapping[str, Any], *, stays: bool = False, **more: Any
) -> AsyncGenerator[tuple[Remote, Scripted]]:
    async with scripted(answers, stays=stays) as server:
        remote = build_remote(spec(fields, server.url, **more))
        try:
            yield remote, server
        finally:
            await remote.close()


def classified(*probs: list[float], labels: list[str] | None = None) -> bytes:
    """What vLLM answers on `/classify`."""
    names = labels or ["LABEL_0"] * len(probs)
    data = [{"index": i, "label": names[i], "probs": one, "num_classes": len(one)} for i, one in enumerate(probs)]
    return json({"id": "classify-1", "object": "list", "created": 1, "model": "judge", "data": data, "usage": {}})


def scored(*scores: float) -> bytes:
    """What vLLM answers on `/score`, the last one first."""
    data = [{"index": i, "object": "score", "score": one} for i, one in enumerate(scores)]
    return json({"id": "score-1", "object": "list", "created": 1, "model": "judge", "data": data[::-1], "usage": {}})


def said(**probabilities: float) -> bytes:
    """A chat completion whose first token had these probabilities."""
    listed = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in probabilities.items()]
    content = [{**listed[0], "top_logprobs": listed}]
    return json({"choices": [{"message": {"role": "assistant", "content": "No"}, "logprobs": {"content": content}}]})


def body(asked: Asked) -> Any:
    return orjson.loads(asked.body)


async def failing(answer: bytes, fields: Mapping[str, Any] = CLASSIFY, **more: Any) -> ScorerUnavailable:
    """The error of a judge whose server answers so on every route."""
    routes = {"/classify": answer, "/score": answer, "/v1/chat/completions": answer}
    async with judging(routes, fields, **more) as (remote, _):
        with pytest.raises(ScorerUnavailable) as caught:
            await remote.score(DIALOGUES)
    assert "vorn" not in caught.value.message
    return caught.value


async def test_classify_sends_each_conversation_for_the_servers_own_chat_template() -> None:
    async with judging({"/classify": classified([0.7])}, CLASSIFY) as (remote, server):
        assert await remote.score(DIALOGUES) == [Scores(safety=0.7)] * 3
    assert {asked.path for asked in server.asked} == {"/classify"}
    sent = sorted(body(asked)["messages"][-1]["content"] for asked in server.asked)
    assert sent == sorted(dialogue.answer for dialogue in DIALOGUES)
    assert body(server.asked[0]).keys() == {"model", "messages"}
    assert body(server.asked[0])["messages"][0] == ASKED[0]
    assert body(server.asked[0])["messages"][1]["role"] == "assistant"


async def test_classify_reads_answers_alone_in_batches() -> None:
    def by_length(asked: Asked) -> bytes:
        return classified(*([len(text) / 100] for text in body(asked)["input"]))

    fields = {**CLASSIFY, "reads": "answer", "max_batch": 2}
    async with judging({"/classify": by_length}, fields) as (remote, server):
        found = await remote.score(DIALOGUES)
    assert [one.safety for one in found] == [len(dialogue.answer) / 100 for dialogue in DIALOGUES]
    assert sorted(len(body(asked)["input"]) for asked in server.asked) == [1, 2]


async def test_one_model_may_judge_both_dials_by_the_names_of_its_classes() -> None:
    fields = {
        "api": "classify",
        "labels": {"helpfulness": "helps", "safety": "safe"},
        "classes": ["safe", "unsafe", "helps"],
    }
    async with judging({"/classify": classified([0.2, 0.1, 0.7], labels=["helps"])}, fields) as (remote, _):
        assert await remote.score(DIALOGUES[:1]) == [Scores(safety=0.2, helpfulness=0.7)]
        assert remote.card.dials == ("safety", "helpfulness")


@pytest.mark.parametrize("answer", [classified([0.2, 0.8], labels=["safe"]), classified([0.2, 0.7, 0.1])])
async def test_a_model_of_other_classes_than_the_specs_is_no_judge(answer: bytes) -> None:
    fields = {"api": "classify", "labels": {"safety": "safe"}, "classes": ["safe", "unsafe"]}
    assert "classes are not safe, unsafe" in (await failing(answer, fields)).message


async def test_a_label_beyond_the_models_classes_is_no_level() -> None:
    error = await failing(classified([0.4]), {"api": "classify", "labels": {"safety": 1}})
    assert "its model has 1 classes, and labels needs 2" in error.message


async def test_score_sends_questions_with_answers_and_takes_scores_by_their_index() -> None:
    async with judging({"/score": scored(0.1, 0.2, 0.3)}, SCORE) as (remote, server):
        assert [one.helpfulness for one in await remote.score(DIALOGUES)] == [0.1, 0.2, 0.3]
    (asked,) = server.asked
    answers = [dialogue.answer for dialogue in DIALOGUES]
    assert body(asked) == {"model": "judge", "text_1": [ASKED[0]["content"]] * 3, "text_2": answers}


async def test_raw_scores_become_levels_between_low_and_high() -> None:
    fields = {**SCORE, "scale": {"low": -2.0, "high": 6.0}, "activation": False, "truncate": "left"}
    async with judging({"/score": scored(-3.0, 0.0, 7.0)}, fields) as (remote, server):
        assert [one.helpfulness for one in await remote.score(DIALOGUES)] == [0.0, 0.25, 1.0]
    sent = body(server.asked[0])
    assert (sent["use_activation"], sent["truncate_prompt_tokens"], sent["truncation_side"]) == (False, -1, "left")


async def test_a_scale_turned_around_makes_a_cost_a_level() -> None:
    fields = {**SCORE, "scale": {"low": 0.0, "high": 1.0}, "invert": True}
    async with judging({"/score": scored(0.2)}, fields) as (remote, _):
        assert await remote.score(DIALOGUES[:1]) == [Scores(helpfulness=0.8)]


@pytest.mark.parametrize("score", [-0.1, 1.5])
async def test_a_score_that_should_be_a_probability_and_is_none_is_no_level(score: float) -> None:
    assert f"the score {score}, which is no probability" in (await failing(scored(score, 0, 0), SCORE)).message


async def test_chat_asks_yes_or_no_as_label_read_does() -> None:
    def answer(asked: Asked) -> bytes:
        harm = "harm" in body(asked)["messages"][-1]["content"]
        return said(No=0.9, Yes=0.1) if harm else said(Yes=0.6, No=0.2)

    fields = {**CHAT, "chat_template_kwargs": {"enable_thinking": False}, "limit_field": "max_completion_tokens"}
    async with judging({"/v1/chat/completions": answer}, fields) as (remote, server):
        (found,) = await remote.score(DIALOGUES[:1])
    assert found.safety == pytest.approx(0.9)
    assert found.helpfulness == pytest.approx(0.75)
    sent = body(server.asked[0])
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["max_completion_tokens"] == 1
    assert sent["messages"][:2] == [*ASKED, {"role": "assistant", "content": DIALOGUES[0].answer}]


async def test_a_chat_judge_that_says_neither_word_has_not_judged() -> None:
    async with judging({"/v1/chat/completions": said(Well=0.9)}, CHAT) as (remote, _):
        assert await remote.score(DIALOGUES[:1]) == [UNJUDGED]


async def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret\n")
    async with judging({"/classify": classified([0.7])}, CLASSIFY, key_env="JUDGE_KEY") as (remote, server):
        await remote.score(DIALOGUES[:1])
        assert "sk-secret" not in repr(vars(remote))
    assert server.asked[0].headers["authorization"] == "Bearer sk-secret"
    refused = await failing(error(401, "Incorrect key sk-secret"), key_env="JUDGE_KEY")
    assert "status 401; the environment variable JUDGE_KEY holds its key" in refused.message
    assert "sk-secret" not in refused.message


@pytest.mark.parametrize("key", ["", " ", "schlüssel", "sk-a\nb"])
def test_a_key_that_is_none_stops_the_start(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(ScorersError, match="key_env is JUDGE_KEY") as caught:
        build_remote(spec(CLASSIFY, key_env="JUDGE_KEY"))
    assert not key.strip() or key not in str(caught.value)


def test_a_variable_that_is_not_set_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ScorersError, match="not set"):
        build_remote(spec(CLASSIFY, key_env="JUDGE_KEY"))


@pytest.mark.parametrize("broken", [b"", error(503, "starting")])
async def test_a_server_that_breaks_off_or_is_unavailable_is_asked_once_more(broken: bytes) -> None:
    answers = iter([broken, scored(0.1, 0.2, 0.3)])
    async with judging({"/score": lambda _: next(answers)}, SCORE) as (remote, _):
        assert [one.helpfulness for one in await remote.score(DIALOGUES)] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("broken", "reason"), [(b"", "closed the connection without an answer"), (error(503, "vorn"), "status 503")]
)
async def test_a_server_that_stays_away_is_asked_no_third_time(broken: bytes, reason: str) -> None:
    async with judging({"/score": broken}, SCORE) as (remote, server):
        with pytest.raises(ScorerUnavailable, match=reason):
            await remote.score(DIALOGUES)
    assert len(server.asked) == 2


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    remote = build_remote(spec(CLASSIFY))
    with pytest.raises(ScorerUnavailable, match="'judge': the upstream server cannot be reached"):
        await remote.score(DIALOGUES)
    await remote.close()


async def test_a_silent_server_is_given_up_at_the_deadline_and_its_connection_is_closed() -> None:
    async with judging({"/score": b""}, SCORE, stays=True, deadline=0.2) as (remote, server):
        with pytest.raises(ScorerUnavailable, match=r"did not judge within its deadline of 0\.2 s"):
            await remote.score(DIALOGUES)
        await asyncio.wait_for(server.hung_up.wait(), 5)
    assert len(server.asked) == 1


async def test_a_cancelled_call_closes_its_connection() -> None:
    async with judging({"/score": b""}, SCORE, stays=True) as (remote, server):
        call = asyncio.ensure_future(remote.score(DIALOGUES))
        while not server.asked:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.hung_up.wait(), 5)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(400, "no role vorn"), "the server answered with status 400"),
        (error(401, "who?"), "key_env must name"),
        (error(404, "no model"), "status 404; is it the classify API of a server that has the model 'judge'"),
        (error(500, "vorn"), "status 500"),
        (http(200, b"<html>", "text/html"), "another content-type than 'application/json'"),
        (http(200, b"{vorn"), "invalid JSON"),
        (json([]), "cannot be read; all of it"),
        (json({"data": []}), "asked for 1 judgements and told 0"),
        (json({"data": [{"index": 1, "probs": [0.5]}]}), "numbered them wrongly"),
        (json({"data": [{"index": 0, "probs": ["vorn"]}]}), r"data.0.probs.0 is not as vLLM writes it"),
        (json({"data": [{"index": 0, "label": "vorn", "probs": None}]}), "data.0.probs"),
        (json({"data": [{"index": 0, "probs": []}]}), "has 0 classes"),
    ],
)
async def test_what_is_no_answer_is_never_a_level(answer: bytes, reason: str) -> None:
    assert reason in (await failing(answer)).message


@pytest.mark.parametrize(
    "answer", [json({"choices": []}), json({"choices": [{"message": {"content": "No"}, "logprobs": None}]})]
)
async def test_a_chat_judge_without_log_probabilities_is_none(answer: bytes) -> None:
    assert "log-probabilities" in (await failing(answer, CHAT)).message


async def test_a_text_that_is_too_long_is_not_judged_and_the_others_of_its_batch_are() -> None:
    def answer(asked: Asked) -> bytes:
        texts = body(asked)["text_2"]
        if any(len(text) > 100 for text in texts):
            return error(400, "too long", param="input_tokens")
        return scored(*(len(text) / 100 for text in texts))

    long = Dialogue(ASKED, "sun " * 50)
    async with judging({"/score": answer}, SCORE) as (remote, server):
        found = await remote.score([DIALOGUES[0], long, Dialogue(ASKED, ""), DIALOGUES[1], DIALOGUES[2]])
    assert [one.helpfulness for one in found] == [0.11, None, None, 0.15, 0.16]
    assert "" not in body(server.asked[0])["text_2"]


async def test_no_more_requests_run_at_once_than_connections() -> None:
    async with judging({"/classify": b""}, CLASSIFY, stays=True, connections=2, deadline=0.3) as (remote, server):
        with pytest.raises(ScorerUnavailable):
            await remote.score(DIALOGUES)
    assert len(server.asked) == 2


async def test_a_closed_judge_is_not_asked() -> None:
    async with judging({"/score": scored(0.1)}, SCORE) as (remote, server):
        await remote.close()
        with pytest.raises(ScorerUnavailable, match="closed"):
            await remote.score(DIALOGUES[:1])
    assert server.asked == []


def test_the_digest_is_of_url_model_and_settings() -> None:
    def digest(fields: Mapping[str, Any], **more: Any) -> str:
        return build_remote(spec(fields, **more)).card.digest

    plain = digest(CLASSIFY)
    assert plain.startswith("sha256:")
    assert digest(CLASSIFY, name="other", weight=2, deadline=3, connections=2, max_batch=2) == plain
    others = [
        digest(CLASSIFY, url="http://127.0.0.1:2"),
        digest(CLASSIFY, model="other"),
        digest({**CLASSIFY, "labels": {"safety": 1}}),
        digest({**CLASSIFY, "scale": {"low": 0.0, "high": 2.0}}),
        digest(CHAT),
        digest({**CHAT, "questions": {"safety": {"ask": "?", "good": ["no"], "bad": ["yes"]}}}),
    ]
    assert len({plain, *others}) == 7


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({**CLASSIFY, "url": "judge:8000"}, "url must be like http"),
        ({**CLASSIFY, "url": "http://u:secret@h"}, "url must be like http"),
        ({**CLASSIFY, "key": "sk-1"}, "Extra inputs"),
        ({**CLASSIFY, "dial": "safety"}, "Extra inputs"),
        ({**CLASSIFY, "wording": "rheostat-1"}, "Extra inputs"),
        ({**CLASSIFY, "labels": {"safety": "safe"}}, "'safe', which is not in classes"),
        ({**CLASSIFY, "labels": {"safety": 2}, "classes": ["a", "b"]}, "labels.safety is 2; classes holds 2"),
        ({**CLASSIFY, "labels": {}}, "at least 1"),
        ({**SCORE, "scale": {"low": 1.0, "high": 1.0}}, "low must be below high"),
        ({**SCORE, "scale": "logit"}, "probability"),
        ({**CHAT, "scale": "probability"}, "Extra inputs"),
        ({"api": "guess"}, "classify"),
    ],
)
def test_a_spec_that_does_not_fit_says_why(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        spec(fields)
