"""Requests at fault: refused with a message that says what is wrong, and never answered."""

from typing import Any

import openai
import pytest

from tests.engines.suite.served import Served
from tests.tiny import MAX_POSITIONS


def test_an_unknown_model_is_not_found(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="'nobody'") as caught:
        served.openai().chat.completions.create(**served.body(model="nobody"))
    assert caught.value.param == "model"
    assert caught.value.code == "model_not_found"


def test_an_adapter_is_no_model(served: Served) -> None:
    status, error = served.refusal(served.body(model=served.warm))
    assert (status, error["code"]) == (404, "model_not_found")


def test_an_unknown_adapter_is_not_found(served: Served) -> None:
    status, error = served.refusal(served.by_adapter("nobody"))
    assert (status, error["param"]) == (404, "control.adapter")
    assert served.warm in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit_the_context_is_refused(served: Served, stream: bool) -> None:
    status, error = served.refusal(served.body("garden " * 2 * MAX_POSITIONS, stream=stream))
    assert status == 400
    assert error["code"] == "context_length_exceeded"
    assert str(MAX_POSITIONS) in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_does_not_fit_the_context_is_refused(served: Served, stream: bool) -> None:
    status, error = served.refusal(served.body(max_tokens=2 * MAX_POSITIONS, stream=stream))
    assert status == 400
    assert str(MAX_POSITIONS) in error["message"]


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", -1), ("top_p", 2), ("max_tokens", -3), ("top_logprobs", -2)]
)
def test_a_wrong_value_is_refused_and_named(served: Served, field: str, value: object) -> None:
    fields: dict[str, Any] = {"logprobs": True} if field == "top_logprobs" else {}
    status, error = served.refusal(served.body(**{**fields, field: value}))
    assert status in (400, 422)
    assert field in f"{error['param']} {error['message']}"


def test_the_engine_answers_after_it_has_refused(served: Served) -> None:
    served.refusal(served.body(temperature=-1))
    assert served.answer(served.body())["choices"]
