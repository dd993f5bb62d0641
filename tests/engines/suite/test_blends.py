"""A blend of two adapters: every engine serves its points, whole, streamed and reranked."""

import json
from typing import Any

import pytest

from tests.engines.suite.served import Body, Served, text_of

POINTS = [(0, 0), (0, 1), (0.5, 0.5), (1, 0), (1, 1)]
WEIGHTS = [(0.1, 0.0), (0.1, 1.25), (0.55, 0.25), (1.0, 0.0), (1.0, 1.25)]


def at(served: Served, safety: float, helpfulness: float, **fields: Any) -> Body:
    control = {"mode": "blend", "safety": safety, "helpfulness": helpfulness}
    return served.body(**{"control": control, "max_tokens": 32, **fields})


def test_each_point_answers_in_its_own_way_and_always_so(served: Served) -> None:
    rounds = [[served.answer(at(served, *point)) for point in POINTS] for _ in range(2)]
    texts = [[text_of(answer) for answer in answers] for answers in rounds]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == len(POINTS)
    receipts = [answer["control"] for answer in rounds[0]]
    assert [tuple(receipt["blend"].values()) for receipt in receipts] == WEIGHTS
    assert [answer["model"] for answer in rounds[0]] == [receipt["adapter"] for receipt in receipts]


def test_a_stream_tells_what_a_whole_answer_does(served: Served) -> None:
    whole = served.answer(at(served, 1, 0.5))
    with served.http() as http:
        streamed = http.post("/v1/chat/completions", json=at(served, 1, 0.5, stream=True)).text
    *chunks, receipt = [json.loads(event.removeprefix("data: ")) for event in streamed.split("\n\n")[:-2]]
    said = "".join(each["delta"].get("content") or "" for chunk in chunks for each in chunk["choices"])
    assert said == text_of(whole)
    assert receipt["control"]["adapter"] == whole["control"]["adapter"]
    assert receipt["control"]["blend"] == whole["control"]["blend"]


@pytest.mark.parametrize("stream", [False, True])
def test_candidates_are_drawn_by_a_blend(served: Served, stream: bool) -> None:
    control = {"mode": "blend+rerank", "safety": 1, "helpfulness": 0.5, "candidates": 3}
    asked = served.body(control=control, temperature=1, stream=stream)
    with served.http() as http:
        answer = http.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200, answer.text
    told = json.loads(answer.text.split("\n\n")[-3].removeprefix("data: ")) if stream else answer.json()
    assert told["control"]["mode"] == "blend+rerank"
    assert told["control"]["blend"] == {"safe": 1.0, "helpful": 0.25}
