"""Tool calls and structured output: passed on where the engine has them, and refused where it has not."""

from typing import Any

import orjson
import pytest

from tests.engines.suite.served import TAKE_NO_TOOLS, TAKE_TOOLS, Served

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
TOOLS: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "decide", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "decide"}},
}
STRUCTURED: dict[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "decision", "schema": SCHEMA, "strict": True}}
}


with_tools = pytest.mark.parametrize("served", TAKE_TOOLS, indirect=True)
without_tools = pytest.mark.parametrize("served", TAKE_NO_TOOLS, indirect=True)


@with_tools
def test_a_tool_is_called(served: Served) -> None:
    choice = served.answer(served.body(**TOOLS, max_tokens=200))["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "decide"
    orjson.loads(call["function"]["arguments"])


@with_tools
def test_a_tool_is_called_by_an_adapter(served: Served) -> None:
    answer = served.answer(served.by_adapter("tiny-warm", **TOOLS, max_tokens=200))
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "decide"
    assert answer["control"]["mode"] == "adapter"


@with_tools
def test_a_tools_result_is_read(served: Served) -> None:
    call = {"id": "call-1", "type": "function", "function": {"name": "decide", "arguments": '{"answer": "yes"}'}}
    messages = [
        {"role": "user", "content": "Shall I?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-1", "content": "yes"},
    ]
    assert served.answer(served.body(messages=messages))["choices"][0]["message"]["content"]


@with_tools
def test_an_answer_keeps_to_a_schema(served: Served) -> None:
    choice = served.answer(served.body(**STRUCTURED, max_tokens=200))["choices"][0]
    assert orjson.loads(choice["message"]["content"])["answer"] in ("yes", "no")


@pytest.mark.parametrize("fields", [TOOLS, STRUCTURED], ids=["tools", "response_format"])
@pytest.mark.parametrize("stream", [False, True])
@without_tools
def test_what_the_engine_has_not_is_refused(served: Served, fields: dict[str, Any], stream: bool) -> None:
    status, error = served.refusal(served.body(**fields, stream=stream))
    assert status == 400
    assert error["code"] == "unsupported_field"
    assert error["param"] in fields
    assert f"{served.engine} engine" in error["message"]
