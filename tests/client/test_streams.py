"""Streams: wherever they are cut, their pieces are whole; and none ends in silence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest

from rheostat import InvalidValue, OutsideEnvelope, StreamFailed, UnreadableAnswer, Usage
from tests.client.test_failures import answering, refusal
from tests.client.twins import Body, Handler, Twin

RECEIPT = {"requested": {"safety": 1}, "effective": {"safety": 1, "helpfulness": 0.5}, "mode": "prompt"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(content: str | None, **others: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None, **others}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "demo", "choices": [choice]}


PIECES = ["Grün ", "\u2028line", "\x85", "🌿", " done"]
CHUNKS: Sequence[Mapping[str, Any]] = [
    {**chunk(""), "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]},
    *(chunk(piece) for piece in PIECES),
    chunk("other", index=1),
    chunk(None, finish_reason="stop"),
    {"choices": [], "usage": USAGE},
    {"id": "c-1", "model": "demo", "choices": [], "control": RECEIPT},
]


def wire(chunks: Sequence[Mapping[str, Any]] = CHUNKS, end: str = "data: [DONE]\n\n", newline: str = "\n") -> bytes:
    events = [f"data: {json.dumps(each, ensure_ascii=False)}\n\n" for each in chunks]
    return ("".join([": a comment\n\n", *events]) + end).replace("\n", newline).encode()


def serving(body: Body) -> Handler:
    return lambda request: httpx.Response(200, stream=body, headers={"X-Request-ID": "r-1"})


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
async def test_a_stream_comes_in_pieces_wherever_its_bytes_are_cut(twin: Twin, size: int, newline: str) -> None:
    body = Body(cut(wire(newline=newline), size))
    pieces, stream = await twin.read(serving(body), "stream", "Hello", model="m")
    assert pieces == PIECES
    assert stream.answer.content == "".join(PIECES)
    assert (stream.answer.finish_reason, stream.answer.model) == ("stop", "demo")
    assert stream.answer.usage == Usage(3, 2, 5)
    assert stream.receipt.raw == RECEIPT
    assert (stream.request_id, stream.answer.request_id) == ("r-1", "r-1")
    assert stream.chunks == CHUNKS
    assert body.closed


async def test_what_is_asked_is_a_stream(twin: Twin) -> None:
    asked: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200, content=wire())

    await twin.read(handle, "stream", "Hello", model="m", dials={"safety": 1})
    messages = [{"role": "user", "content": "Hello"}]
    counted = {"include_usage": True}
    body = {"model": "m", "messages": messages, "stream": True, "stream_options": counted, "control": {"safety": 1}}
    assert asked == [body]
    await twin.read(handle, "stream", "Hello", model="m", stream_options={"include_usage": False})
    assert asked[1]["stream_options"] == {"include_usage": False}


async def test_leaving_a_stream_closes_its_connection_and_it_has_no_receipt(twin: Twin) -> None:
    body = Body(cut(wire(), 5))
    pieces, stream = await twin.read(serving(body), "stream", "Hello", model="m", most=2)
    assert pieces == PIECES[:2]
    assert body.closed
    with pytest.raises(StreamFailed, match="cut off before its end"):
        assert stream.receipt


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize("kept", [0, 40, 400, len(wire()) - 20])
async def test_a_stream_that_is_cut_off_fails_and_is_not_asked_again(twin: Twin, kept: int, breaks: bool) -> None:
    body = Body([wire()[:kept]], breaks=httpx.ReadError("broken") if breaks else None)
    with pytest.raises(StreamFailed, match="cut off before its end: " + ("broken" if breaks else "the conn")) as raised:
        await twin.read(serving(body), "stream", "Hello", model="m")
    assert raised.value.request_id == "r-1"
    assert body.closed


async def test_a_connection_that_breaks_after_the_end_does_no_harm(twin: Twin) -> None:
    pieces, stream = await twin.read(
        serving(Body([wire()], breaks=httpx.ReadError("broken"))), "stream", "Hello", model="m"
    )
    assert pieces == PIECES
    assert stream.receipt.mode == "prompt"


async def test_an_error_event_is_raised_with_what_it_says(twin: Twin) -> None:
    error = {"error": {"message": "gone", "type": "t", "param": None, "code": "engine_failed"}}
    body = Body([wire([CHUNKS[1], error])])
    with pytest.raises(StreamFailed, match="the stream ended with an error: gone") as raised:
        await twin.read(serving(body), "stream", "Hello", model="m")
    assert (raised.value.code, raised.value.request_id) == ("engine_failed", "r-1")


async def test_a_stream_without_a_receipt_is_none_of_a_rheostat_server(twin: Twin) -> None:
    with pytest.raises(StreamFailed, match="no receipt"):
        await twin.read(serving(Body([wire(CHUNKS[:-1])])), "stream", "Hello", model="m")


@pytest.mark.parametrize("text", ["nonsense", "[]", "{}", '{"choices": 3}', '{"choices": [{"index": 0}]}'])
async def test_an_event_of_another_kind_is_told(twin: Twin, text: str) -> None:
    with pytest.raises(UnreadableAnswer, match="which is none of its events"):
        await twin.read(serving(Body([f"data: {text}\n\n".encode()])), "stream", "Hello", model="m")


@pytest.mark.parametrize(
    "control", [{}, {"mode": "off"}, {**RECEIPT, "requested": {"safety": 3}}, {**RECEIPT, "requested": {"other": 1}}, 3]
)
async def test_a_receipt_of_another_kind_is_told_at_the_end(twin: Twin, control: object) -> None:
    body = wire([*CHUNKS[:-1], {"id": "c-1", "model": "demo", "choices": [], "control": control}])
    with pytest.raises(UnreadableAnswer, match="which is none of its events") as raised:
        await twin.read(serving(Body([body])), "stream", "Hello", model="m")
    assert raised.value.request_id == "r-1"


async def test_a_stream_that_was_left_early_has_no_answer_whatever_it_told(twin: Twin) -> None:
    wrong = {**CHUNKS[1], "control": {}}
    _, stream = await twin.read(serving(Body(cut(wire([wrong, *CHUNKS[2:]]), 5))), "stream", "Hello", model="m", most=1)
    with pytest.raises(StreamFailed):
        assert stream.receipt


async def test_an_error_that_is_null_is_none(twin: Twin) -> None:
    pieces, _ = await twin.read(
        serving(Body([wire([{**each, "error": None} for each in CHUNKS])])), "stream", "Hi", model="m"
    )
    assert pieces == PIECES
    point = {"index": 0, "safety": 0, "content": "Yes.", "control": RECEIPT, "error": None}
    [reached], _ = await twin.read(serving(Body([wire([point])])), "sweep_stream", "Hi", model="m")
    assert (reached.error, reached.content, reached.receipt.mode) == (None, "Yes.", "prompt")


async def test_a_refusal_before_the_first_event_has_its_own_status_and_may_be_tried_again(
    twin: Twin, pauses: list[float]
) -> None:
    handle, asked = answering(refusal(503), httpx.Response(200, content=wire()))
    pieces, _ = await twin.read(handle, "stream", "Hello", model="m")
    assert (pieces, asked(), len(pauses)) == (PIECES, 2, 1)
    handle, _ = answering(refusal(403, "outside_envelope"))
    with pytest.raises(OutsideEnvelope):
        await twin.read(handle, "stream", "Hello", model="m")


async def test_a_sweep_comes_point_by_point_and_one_that_failed_bears_its_error(twin: Twin) -> None:
    error = {"message": "no", "type": "t", "param": "n", "code": "invalid_value"}
    points = [
        {
            "index": 1,
            "safety": 1,
            "content": "Yes.",
            "scores": {"safety": 0.9, "helpfulness": None},
            "control": RECEIPT,
        },
        {"index": 0, "safety": 0, "error": error},
    ]
    (reached, failed), _ = await twin.read(serving(Body(cut(wire(points), 9))), "sweep_stream", "Hello", model="m")
    assert (reached.index, reached.safety, reached.helpfulness, reached.content) == (1, 1, None, "Yes.")
    assert (reached.scores.safety, reached.scores.helpfulness, reached.error) == (0.9, None, None)
    assert (failed.index, failed.content, failed.receipt) == (0, None, None)
    assert isinstance(failed.error, InvalidValue)
    assert (failed.error.message, failed.error.param, failed.error.request_id) == ("no", "n", "r-1")
    with pytest.raises(StreamFailed):
        await twin.read(serving(Body([wire(points, end="")])), "sweep_stream", "Hello", model="m")
