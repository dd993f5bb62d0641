"""What a stream's caller sees while its tokens are counted, wherever its bytes are cut; and estimates."""

from typing import Any, Final

import pytest

from rheostat_server.engines import DONE
from rheostat_server.sse import event
from rheostat_server.usage import UsageTally, estimated, usage_of

TEXT: Final = 'He said: ,"usage":{"total_tokens":1} and data: {"usage":null}'
ID: Final = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "demo"}


def usage(tokens: int) -> dict[str, Any]:
    details = {"cached_tokens": 2}
    return {
        "prompt_tokens": 5, "total_tokens": 5 + tokens, "completion_tokens": tokens, "prompt_tokens_details": details,
    }  # fmt: skip


def said(text: str, **more: Any) -> dict[str, Any]:
    return {**ID, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}


ASKED: Final = b"".join([
    event(said(TEXT, usage=usage(1))), event(said("b", usage=usage(7))),
    event({**ID, "choices": [], "usage": usage(7)}), DONE,
])  # fmt: skip
"""A stream of an engine that tells the count in each event."""
NOT_ASKED: Final = event(said(TEXT)) + event(said("b")) + DONE
AT_THE_END: Final = b"".join([
    event(said(TEXT, usage=None)), event(said("b", usage=None)),
    event({**ID, "choices": [], "usage": usage(7)}), DONE,
])  # fmt: skip


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, NOT_ASKED),
        ({"include_usage": False}, NOT_ASKED),
        ({"include_usage": True}, AT_THE_END),
        ({"include_usage": True, "continuous_usage_stats": True}, ASKED),
    ],
)
def test_a_caller_sees_what_it_asked_for_wherever_the_bytes_are_cut(options: dict[str, Any], seen: bytes) -> None:
    for cut in range(1, len(ASKED)):
        tally = UsageTally(options)
        passed = tally.let_through(ASKED[:cut]) + tally.let_through(ASKED[cut:]) + tally.rest()
        assert passed == seen
        assert tally.known == usage(7)


def test_a_stream_that_is_cut_off_has_the_count_of_its_last_whole_event() -> None:
    tally = UsageTally({})
    tally.let_through(ASKED[: ASKED.index(b'"content":"b"')])
    assert tally.known == {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}


def test_counts_of_several_choices_are_added_up_while_the_last_one_has_not_come() -> None:
    tally = UsageTally({})
    for index, tokens in ((0, 1), (1, 1), (0, 2), (1, 5), (2, 3)):
        choice = {"index": index, "delta": {"content": "x"}}
        tally.let_through(event({**ID, "choices": [choice], "usage": usage(tokens)}))
    assert tally.known == {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}


def test_json_with_spaces_and_other_line_ends_is_read_too() -> None:
    tally = UsageTally({})
    first = b'data: {"choices": [{"index": 0}]}\r\n\r\n'
    last = b'data: {"choices": [], "usage": {"total_tokens": 3}}\r\n\r\n'
    assert tally.let_through(first + last + b"data: [DONE]\r\n\r\n") == first.replace(b"\r", b"") + DONE
    assert tally.known == {"total_tokens": 3}


def test_a_prompt_is_estimated_by_all_that_it_is_made_of() -> None:
    body = {"messages": [{"role": "user", "content": "x" * 4000}], "tools": [{"name": "y" * 4000}], "user": "z" * 4000}
    assert 2000 <= estimated(body)["prompt_tokens"] <= 2050
    assert estimated(body, completion_tokens=7)["total_tokens"] == estimated(body)["prompt_tokens"] + 7


def test_an_answer_is_estimated_only_where_the_engine_does_not_count() -> None:
    completion = {"choices": [{"message": {"content": "x" * 400}}]}
    assert usage_of({**completion, "usage": usage(7)}, {}) == usage(7)
    found = usage_of(completion, {"messages": []})
    assert found["estimated"] is True
    assert 100 <= found["completion_tokens"] <= 110
