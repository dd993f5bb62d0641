"""What a body may ask of the embedded engine, and what it is told when it asks too much."""

from typing import Any

import pytest

from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.engines.embedded.request import METADATA
from rheostat_server.errors import (
    BadRequest,
    ContextOverflow,
    InvalidField,
    RheostatError,
    UnknownModel,
    UnsupportedField,
)
from tests.engines.embedded.asking import SHORT, request, text_of, texts_of
from tests.tiny import MAX_POSITIONS


async def error_of(engine: EmbeddedEngine, **fields: Any) -> RheostatError:
    with pytest.raises(RheostatError) as caught:
        await engine.complete(request(**fields))
    return caught.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "auto"),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("store", True),
        ("reasoning_effort", "high"),
        ("echo", True),
        ("never_heard_of", 1),
    ],
)
async def test_what_the_engine_cannot_do_is_refused_by_name(engine: EmbeddedEngine, field: str, value: object) -> None:
    error = await error_of(engine, **{field: value})
    assert isinstance(error, UnsupportedField)
    assert error.param == field
    assert field in error.message
    assert "embedded engine" in error.message


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages[0].content"),
        ({"role": "assistant", "content": "a", "tool_calls": [{}]}, "messages[0].tool_calls"),
        ({"role": "tool", "content": "a", "tool_call_id": "1"}, "messages[0].tool_call_id"),
    ],
)
async def test_parts_of_messages_that_are_not_text_are_refused_by_their_path(
    engine: EmbeddedEngine, message: dict[str, Any], param: str
) -> None:
    error = await error_of(engine, messages=[message])
    assert isinstance(error, UnsupportedField)
    assert error.param == param


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "0.5"),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", -0.1),
        ("temperature", True),
        ("temperature", []),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", 1.5),
        ("n", 0),
        ("n", 10**6),
        ("n", True),
        ("n", "2"),
        ("seed", 2**70),
        ("seed", 0.5),
        ("max_tokens", 0),
        ("max_tokens", "many"),
        ("min_tokens", 13),
        ("stop", 3),
        ("stop", [""]),
        ("stop", [None]),
        ("logprobs", 5),
        ("top_logprobs", 3),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"100000": 1}),
        ("logit_bias", {"1": 1000}),
        ("logit_bias", {"01": 1}),
        ("logit_bias", {"0" * 5000: 1}),
        ("repetition_penalty", 1e-300),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", list(range(512))),
        ("stream_options", {"include_usage": True}),
        ("max_completion_tokens", 5),
        ("messages", []),
        ("messages", None),
        ("messages", "hello"),
        ("messages", [None]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": None}]),
        ("messages", [{"role": "user", "content": 3}]),
        ("messages", [{"role": "user", "content": []}]),
        ("messages", [{"role": "user", "content": [{"type": "text"}]}]),
        ("messages", [{"role": "user", "content": ["a"]}]),
        ("messages", [{"role": "user", "content": "\ud800"}]),
        ("messages", [{"role": 1, "content": "a"}]),
        ("messages", [{"content": "a"}]),
        ("model", None),
        ("model", 3),
    ],
    ids=str,
)
async def test_a_wrong_value_is_refused_with_its_path(engine: EmbeddedEngine, field: str, value: object) -> None:
    error = await error_of(engine, **{field: value})
    assert isinstance(error, InvalidField)
    assert error.param is not None
    assert field == "max_completion_tokens" or error.param.startswith(field)
    assert error.param in error.message


async def test_no_value_that_is_let_through_stops_the_engine(own_engine: EmbeddedEngine) -> None:
    extremes: dict[str, Any] = {
        "temperature": 2, "top_p": 1e-300, "top_k": 2**64 - 1, "min_p": 1, "presence_penalty": -2,
        "frequency_penalty": -2, "repetition_penalty": 0.01, "logit_bias": {"3": 100}, "seed": 2**64 - 1,
        "stop_token_ids": list(range(64)), "min_tokens": 12, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    for field, value in extremes.items():
        await own_engine.complete(request(**{"temperature": 1, "logprobs": True, field: value}))
    await own_engine.complete(request(**extremes))
    await own_engine.check_ready()


async def test_more_tokens_at_least_than_fit_are_refused(engine: EmbeddedEngine) -> None:
    error = await error_of(engine, min_tokens=MAX_POSITIONS, max_tokens=None)
    assert isinstance(error, InvalidField)
    assert error.param == "min_tokens"


async def test_a_message_tells_field_value_and_what_would_be_right(engine: EmbeddedEngine) -> None:
    error = await error_of(engine, temperature=3)
    assert error.message == "temperature is 3; it should be less than or equal to 2."


async def test_deep_nesting_is_refused_like_anything_else(engine: EmbeddedEngine) -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert isinstance(await error_of(engine, stop=deep), InvalidField)
    assert isinstance(await error_of(engine, messages=[{"role": "user", "content": deep}]), InvalidField)


async def test_nulls_and_metadata_ask_for_nothing(engine: EmbeddedEngine) -> None:
    plain = await text_of(engine, temperature=0)
    nulls: dict[str, Any] = dict.fromkeys(("tools", "stop", "seed", "response_format", "logit_bias", "stream_options"))
    metadata: dict[str, Any] = dict.fromkeys(METADATA, "anything")
    neutral: dict[str, Any] = {"response_format": {"type": "text"}, "store": False, "tool_choice": "none"}
    assert await text_of(engine, temperature=0, **{**nulls, **metadata, **neutral}) == plain


async def test_an_assistant_message_can_be_sent_back_as_it_came(engine: EmbeddedEngine) -> None:
    first = await engine.complete(request())
    message = {**first["choices"][0]["message"], "tool_calls": None, "audio": None}
    await engine.complete(request(messages=[{"role": "user", "content": SHORT}, message]))


async def test_text_parts_are_lines_as_in_vllm(engine: EmbeddedEngine) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    listed = await engine.complete(request(temperature=0, messages=[{"role": "user", "content": parts}]))
    plain = await engine.complete(request("one\ntwo", temperature=0))
    assert listed["choices"] == plain["choices"]
    assert listed["usage"] == plain["usage"]


async def test_an_unknown_model_is_told_which_are_known(engine: EmbeddedEngine) -> None:
    error = await error_of(engine, model="other")
    assert isinstance(error, UnknownModel)
    assert "tiny, tiny-warm@" in error.message


async def test_a_prompt_and_answer_that_do_not_fit_are_refused_with_the_figures(engine: EmbeddedEngine) -> None:
    error = await error_of(engine, max_tokens=MAX_POSITIONS)
    assert isinstance(error, ContextOverflow)
    assert error.param == "max_tokens"
    assert str(MAX_POSITIONS) in error.message
    long = await error_of(engine, messages=[{"role": "user", "content": "word " * 10_000}], max_tokens=None)
    assert isinstance(long, ContextOverflow)
    assert long.param == "messages"


async def test_an_answer_without_a_limit_may_fill_the_context(engine: EmbeddedEngine) -> None:
    usage = (await engine.complete(request(max_tokens=None, ignore_eos=True)))["usage"]
    assert usage["total_tokens"] == MAX_POSITIONS


async def test_a_template_that_refuses_a_role_is_a_bad_request(own_engine: EmbeddedEngine) -> None:
    own_engine._model.tokenizer.chat_template = "{{ raise_exception('only users may speak') }}"
    error = await error_of(own_engine)
    assert type(error) is BadRequest
    assert "only users may speak" in error.message
    own_engine._model.tokenizer.chat_template = None
    assert "no chat template" in (await error_of(own_engine)).message


async def test_as_many_candidates_as_there_are_rows_are_served(own_engine: EmbeddedEngine) -> None:
    assert len(await texts_of(own_engine, n=4)) == 4
    assert isinstance(await error_of(own_engine, n=5), InvalidField)
