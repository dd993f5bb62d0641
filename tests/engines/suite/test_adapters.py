"""Adapters by name, alone and together in one batch."""

import asyncio
from typing import Any

import httpx

from tests.engines.suite.served import Served, text_of

QUESTIONS = ("How do I keep a small garden?", "What is it?", "Hello there")


def test_each_adapter_answers_in_its_own_way(served: Served) -> None:
    base = text_of(served.answer(served.body("How do I keep a small garden? [helpful=0.50][harmless=0.50]")))
    warm = text_of(served.answer(served.by_adapter("tiny-warm")))
    cold = text_of(served.answer(served.by_adapter("tiny-cold")))
    assert len({base, warm, cold}) == 3


def test_an_adapter_is_known_by_its_name_and_by_its_id(served: Served) -> None:
    by_name = served.answer(served.by_adapter("tiny-cold"))
    by_id = served.answer(served.by_adapter(served.cold))
    assert text_of(by_name) == text_of(by_id)
    assert by_name["control"]["adapter"] == by_id["control"]["adapter"] == served.cold


def test_the_dials_reach_the_adapter(served: Served) -> None:
    low, high = (
        served.answer(served.body(control={"mode": "adapter", "safety": dial, "helpfulness": 0.5})) for dial in (0, 1)
    )
    assert text_of(low) != text_of(high)
    assert low["control"]["control_text"] == "[helpful=0.50][harmless=0.00]"
    assert low["control"]["adapter"] == served.warm


async def test_two_adapters_and_the_base_in_one_batch_answer_as_they_do_alone(served: Served) -> None:
    bodies = [
        body
        for text in QUESTIONS
        for body in (
            served.by_adapter("tiny-warm", text, max_tokens=32),
            served.by_adapter("tiny-cold", text, max_tokens=32),
            served.body(text, max_tokens=32),
        )
    ]
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as http:
        alone = [await _answer(http, body) for body in bodies]
        together = await asyncio.gather(*(_answer(http, body) for body in bodies))
    assert list(together) == alone


def test_candidates_come_from_the_adapter(served: Served) -> None:
    fields = {"n": 2, "temperature": 1, "seed": 1}
    by_adapter = served.answer(served.by_adapter("tiny-warm", **fields))["choices"]
    by_base = served.answer(served.body("How do I keep a small garden? [helpful=0.50][harmless=0.50]", **fields))
    texts = {choice["message"]["content"] for choice in [*by_adapter, *by_base["choices"]]}
    assert len(texts) == 4


async def _answer(http: httpx.AsyncClient, body: dict[str, Any]) -> str:
    control = {"control": {"mode": "off"}, **body}
    response = await http.post("/v1/chat/completions", json=control)
    assert response.status_code == 200, response.text
    return text_of(response.json())
