"""Streams: the same answers in events, the receipt, and OpenAI's end."""

from collections import defaultdict
from typing import Any

import orjson

from tests.engines.suite.served import Served, text_of

LAST = b"data: [DONE]\n\n"


def raw_stream(served: Served, body: dict[str, Any]) -> bytes:
    with served.http() as http, http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return response.read()


def events(served: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    raw = raw_stream(served, body)
    assert raw.endswith(LAST)
    lines = raw.removesuffix(LAST).splitlines()
    return [orjson.loads(line.removeprefix(b"data: ")) for line in lines if line]


def texts(chunks: list[dict[str, Any]]) -> list[str]:
    """The text of each candidate, in order of their indices."""
    joined: dict[int, str] = defaultdict(str)
    for chunk in chunks:
        for choice in chunk["choices"]:
            joined[choice["index"]] += choice["delta"].get("content") or ""
    return [joined[index] for index in sorted(joined)]


def test_a_stream_says_what_the_whole_answer_says(served: Served) -> None:
    whole = text_of(served.answer(served.body(max_tokens=40)))
    chunks = events(served, served.body(max_tokens=40))
    assert texts(chunks) == [whole]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_stream_comes_in_pieces(served: Served) -> None:
    chunks = events(served, served.body(max_tokens=40))
    assert sum(bool(chunk["choices"] and chunk["choices"][0]["delta"].get("content")) for chunk in chunks) > 5


def test_the_receipt_is_the_last_event_before_done(served: Served) -> None:
    *others, last = events(served, served.body())
    assert last["choices"] == []
    assert last["control"]["mode"] == "off"
    assert all("control" not in chunk for chunk in others)


def test_a_stream_says_why_it_ended(served: Served) -> None:
    reasons = [choice["finish_reason"] for chunk in events(served, served.body()) for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] == ["length"]


def test_a_stop_text_never_appears_in_a_stream(served: Served) -> None:
    whole = text_of(served.answer(served.body(max_tokens=24)))
    stop = whole[len(whole) // 2 :][:3]
    assert texts(events(served, served.body(max_tokens=24, stop=[stop]))) == [whole[: whole.index(stop)]]


def test_n_candidates_are_streamed_side_by_side(served: Served) -> None:
    fields = {"n": 3, "temperature": 1, "seed": 1}
    streamed = texts(events(served, served.body(**fields)))
    whole = [choice["message"]["content"] for choice in served.answer(served.body(**fields))["choices"]]
    assert len(set(streamed)) == 3
    assert sorted(streamed) == sorted(whole)


def test_logprobs_are_streamed(served: Served) -> None:
    chunks = events(served, served.body(logprobs=True, top_logprobs=1, max_tokens=6))
    entries = [
        entry
        for chunk in chunks
        for choice in chunk["choices"]
        for entry in (choice.get("logprobs") or {}).get("content") or []
    ]
    assert "".join(entry["token"] for entry in entries) == texts(chunks)[0]
    assert len(entries) == 6


def test_usage_is_streamed_where_it_is_asked_for(served: Served) -> None:
    whole = served.answer(served.body())["usage"]
    asked = events(served, served.body(stream_options={"include_usage": True}))
    told = [chunk["usage"] for chunk in asked if chunk.get("usage")]
    assert len(told) == 1
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert told[0][name] == whole[name]


def test_usage_is_not_streamed_where_it_is_not_asked_for(served: Served) -> None:
    assert not any(chunk.get("usage") for chunk in events(served, served.body()))


async def test_the_official_client_streams(served: Served) -> None:
    async with served.async_openai() as client:
        stream = await client.chat.completions.create(**served.body(), stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["control"]["mode"] == "off"
