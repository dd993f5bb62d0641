"""A stream's chunks become the whole answer that OpenAI's own client makes of them."""

from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from rheostat_server.errors import EngineFailed
from rheostat_server.reranking.answers import as_wanted, completion_of

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "demo"}


def chunk(delta: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **rest}]}


TEXT = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Yes"}, logprobs={"content": [{"token": "Yes", "logprob": -1.0, "top_logprobs": []}]}),
    chunk({"content": ", so."}, logprobs={"content": [{"token": ", so.", "logprob": -2.0, "top_logprobs": []}]}),
    chunk({}, finish_reason="stop"),
]
CALLS = [
    chunk({"role": "assistant", "content": None}),
    chunk({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
    chunk({"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}),
    chunk({}, finish_reason="tool_calls"),
]


@pytest.mark.parametrize("chunks", [TEXT, CALLS])
def test_chunks_become_what_the_openai_client_makes_of_them(chunks: list[dict[str, Any]]) -> None:
    state = ChatCompletionStreamState()
    for each in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(each))
    theirs = state.get_final_completion().model_dump(exclude_none=True)["choices"][0]
    ours = completion_of(chunks, None)["choices"][0]
    assert ours["finish_reason"] == theirs["finish_reason"]
    assert ours["message"]["content"] == theirs["message"].get("content")
    for mine, his in zip(ours["message"].get("tool_calls", []), theirs["message"].get("tool_calls", []), strict=True):
        assert mine["id"] == his["id"]
        assert mine["function"]["arguments"] == his["function"]["arguments"]
        assert "index" not in mine
    if theirs.get("logprobs"):
        assert [each["token"] for each in ours["logprobs"]["content"]] == ["Yes", ", so."]


def test_what_a_field_holds_that_we_do_not_know_is_kept() -> None:
    whole = completion_of(
        [chunk({"reasoning": "It "}), chunk({"reasoning": "is."}, stop_reason=7)], {"total_tokens": 3}
    )
    assert whole["choices"][0]["message"]["reasoning"] == "It is."
    assert whole["choices"][0]["stop_reason"] == 7
    assert whole["usage"] == {"total_tokens": 3}
    assert whole["object"] == "chat.completion"


def test_what_stands_beside_the_choices_is_kept_from_whichever_chunk_tells_it() -> None:
    first, last = chunk({"content": "a"}), chunk({}, finish_reason="stop")
    whole = completion_of(
        [{**first, "prompt_token_ids": [3, 5], "service_tier": None}, {**last, "service_tier": "x"}], None
    )
    assert whole["prompt_token_ids"] == [3, 5]
    assert whole["service_tier"] == "x"
    assert "usage" not in whole


def test_a_stream_without_a_choice_is_no_answer() -> None:
    with pytest.raises(EngineFailed, match="without a choice"):
        completion_of([{**HEAD, "choices": []}], None)


def test_usage_is_told_as_the_caller_asked() -> None:
    counted = {**chunk({"content": "a"}), "usage": {"completion_tokens": 1}}
    last = {**HEAD, "choices": [], "usage": {"completion_tokens": 1}}
    assert as_wanted(counted, {"continuous_usage_stats": True}) == counted
    assert as_wanted(counted, {"include_usage": True}) == chunk({"content": "a"})
    assert as_wanted(last, {"include_usage": True}) is None
    assert as_wanted(chunk({}), {}) == chunk({})
