"""Whole and streamed answers: what ends them, what they hold, and that they are the same."""

import asyncio
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rheostat_server.engines.embedded import EmbeddedEngine
from tests.engines.embedded.asking import LONG, chunks_of, request, streamed_text, text_of, texts_of, tokens_of


async def test_a_whole_answer_is_openais_object(engine: EmbeddedEngine) -> None:
    answer = ChatCompletion.model_validate(await engine.complete(request(logprobs=True, top_logprobs=2, n=2)))
    assert answer.object == "chat.completion"
    assert answer.model == "tiny"
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


async def test_a_stream_is_openais_chunks_in_their_order(engine: EmbeddedEngine) -> None:
    chunks = [ChatCompletionChunk.model_validate(chunk) for chunk in await chunks_of(engine, temperature=0)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert chunks[-1].choices[0].delta.content is None
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {(chunks[0].id, chunks[0].created, "tiny")}


@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"temperature": 0}, {"stop": ["e"]}, {"top_p": 0.9, "n": 2}], ids=str)
async def test_streamed_and_whole_answers_are_the_same(engine: EmbeddedEngine, fields: dict[str, Any]) -> None:
    chunks = await chunks_of(engine, seed=11, **fields)
    whole = await texts_of(engine, seed=11, **fields)
    assert [streamed_text(chunks, candidate) for candidate in range(len(whole))] == whole


async def test_usage_comes_last_and_only_when_asked_for(engine: EmbeddedEngine) -> None:
    assert all("usage" not in chunk for chunk in await chunks_of(engine))
    chunks = await chunks_of(engine, n=2, stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 24


async def test_running_usage_counts_a_candidates_tokens(engine: EmbeddedEngine) -> None:
    options: dict[str, Any] = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await chunks_of(engine, temperature=0, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 12)


async def test_streamed_log_probabilities_are_those_of_the_whole_answer(engine: EmbeddedEngine) -> None:
    fields: dict[str, Any] = {"temperature": 0, "logprobs": True, "top_logprobs": 2}
    chunks = await chunks_of(engine, **fields)
    streamed = [
        entry["token"]
        for chunk in chunks
        for choice in chunk["choices"]
        for entry in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == tokens_of(await engine.complete(request(**fields)))


async def test_a_seed_gives_the_same_answer_in_any_company(engine: EmbeddedEngine) -> None:
    alone = await text_of(engine, seed=42)
    crowd = [text_of(engine, LONG[: 30 * place], max_tokens=5 + place, top_p=0.9) for place in range(1, 10)]
    both = await asyncio.gather(text_of(engine, seed=42), *crowd, text_of(engine, seed=42, n=2))
    assert both[0] == alone == both[-1]


async def test_another_seed_no_seed_and_other_candidates_give_other_answers(engine: EmbeddedEngine) -> None:
    answers = [
        *await texts_of(engine, seed=1, n=3),
        *await texts_of(engine, seed=2, n=3),
        *await texts_of(engine, n=3),
        await text_of(engine),
    ]
    assert len(set(answers)) == len(answers)


async def test_a_stop_string_ends_an_answer_and_is_not_told(engine: EmbeddedEngine) -> None:
    whole = await text_of(engine, temperature=0)
    stop = whole[6:10]
    completion = await engine.complete(request(temperature=0, stop=stop))
    choice = completion["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"
    assert completion["usage"]["completion_tokens"] < 12
    assert streamed_text(await chunks_of(engine, temperature=0, stop=[stop, "zzz"])) == choice["message"]["content"]


async def test_what_might_have_been_a_stop_string_is_told_in_the_end(engine: EmbeddedEngine) -> None:
    whole = await text_of(engine, temperature=0)
    assert streamed_text(await chunks_of(engine, temperature=0, stop=[whole[-3:] + "never"])) == whole


async def test_the_end_token_ends_an_answer_unless_it_is_ignored(engine: EmbeddedEngine) -> None:
    end = engine._model.tokenizer.eos_token_id
    wanted: dict[str, Any] = {"temperature": 0, "logit_bias": {str(end): 100}}
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({}, 1, "stop"),
        ({"ignore_eos": True}, 12, "length"),
        ({"min_tokens": 5}, 6, "stop"),
    ]
    for fields, tokens, reason in cases:
        answer = await engine.complete(request(**wanted, **fields))
        assert answer["usage"]["completion_tokens"] == tokens
        assert answer["choices"][0]["finish_reason"] == reason
        assert "<end>" not in answer["choices"][0]["message"]["content"]


async def test_a_stop_token_ends_an_answer(engine: EmbeddedEngine) -> None:
    first = tokens_of(await engine.complete(request(temperature=0, logprobs=True)))[0]
    id = engine._tokenizer.token_to_id(first.replace(" ", "Ġ"))
    answer = await engine.complete(request(temperature=0, stop_token_ids=[id]))
    assert answer["choices"][0]["message"]["content"] == ""
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_every_counted_token_has_its_log_probability(engine: EmbeddedEngine) -> None:
    answer = await engine.complete(request(temperature=0, stop="e", logprobs=True))
    assert len(tokens_of(answer)) == answer["usage"]["completion_tokens"]
