"""The score route: levels of an answer that is given, and nothing made up."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from rheostat_server.app import create_app
from rheostat_server.limits.rates import Rates
from rheostat_server.policy import Envelope, Policy
from rheostat_server.scorers import ScorerCard, Scores
from tests.reranking.rigs import Rig, TalkativeScorer

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "response": "Good day."}


async def ask(rig: Rig, body: dict[str, Any]) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(rig.runtime()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.post("/v1/control/score", json=body)


async def test_an_answer_is_judged_by_the_server_s_scorers() -> None:
    rig = Rig(TalkativeScorer(lambda text: Scores(0.25, None)))
    told = (await ask(rig, ASKED)).json()
    assert told["scores"] == {"safety": 0.25, "helpfulness": None}
    assert told["scorers"][0] | {"name": "talkative", "dials": ["safety", "helpfulness"]} == told["scorers"][0]
    assert rig.scorer.asked == [["Good day."]]
    assert rig.engine.asked == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"response": None}, "response"),
        ({"response": 3}, "response"),
        ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"answer": "x"}, "answer"),
    ],
)
async def test_what_cannot_be_judged_is_refused_by_name(change: dict[str, Any], param: str) -> None:
    response = await ask(Rig(), {**ASKED, **change})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


async def test_a_scorer_that_fails_gives_no_level() -> None:
    response = await ask(Rig(TalkativeScorer(fails=True)), ASKED)
    assert response.status_code == 503
    assert "scores" not in response.json()


async def test_a_scorer_that_a_level_did_without_is_named() -> None:
    guard = TalkativeScorer(fails=True, card=ScorerCard("guard", "test", "sha256:1", ("safety",)))
    told = (await ask(Rig(TalkativeScorer(lambda text: Scores(0.25, 0.5)), [guard]), ASKED)).json()
    assert told["scores"] == {"safety": 0.25, "helpfulness": 0.5}
    assert told["left_out"] == ["guard"]


async def test_judging_counts_for_the_callers_rates() -> None:
    rig = Rig()
    policy = Policy(Envelope(rates=Rates(requests_per_minute=1)))
    app = create_app(replace(rig.runtime(), policy=policy))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        first, second = [await http.post("/v1/control/score", json=ASKED) for _ in range(2)]
    assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "0")
    assert (second.status_code, second.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert len(rig.scorer.asked) == 1
