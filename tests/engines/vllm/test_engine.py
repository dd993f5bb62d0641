"""VllmEngine over a chat handler that stands in for vLLM's: what our own code adds, without a model."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.datastructures import State
from starlette.requests import Request
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
)
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse, UsageInfo
from vllm.exceptions import QueueOverflowError, VLLMValidationError
from vllm.logprobs import Logprob
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from rheostat_server.engines import DONE, EngineRequest, Occupancy
from rheostat_server.engines.vllm.engine import VllmEngine
from rheostat_server.errors import (
    BadRequest,
    ContextOverflow,
    EngineFailed,
    EngineRejected,
    EngineUnavailable,
    RheostatError,
    UnsupportedField,
)

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
REQUEST = EngineRequest(BODY, "r1", {"x-data-parallel-rank": "1", "traceparent": "00-a-b-01"})
Answer = Callable[[], Any]


class Handler:
    """Stands in for vLLM's OpenAIServingChat, and keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[tuple[Any, Request]] = []

    async def create_chat_completion(self, request: Any, raw_request: Request) -> Any:
        self.asked.append((request, raw_request))
        return self._answer()


class Client:
    """Stands in for vLLM's client of its engine; `unfinished` are the sequences that this process has in it."""

    def __init__(self, *, dead: bool, unfinished: int = 0) -> None:
        self._dead = dead
        self.output_processor = SimpleNamespace(get_num_unfinished_requests=lambda: unfinished)

    async def check_health(self) -> None:
        if self._dead:
            raise EngineDeadError


def engine_over(
    answer: Answer,
    *,
    dead: bool = False,
    keep_alive: int = 0,
    track_load: bool = False,
    unfinished: int = 0,
    processes: int = 1,
    replicas: int = 1,
) -> tuple[VllmEngine, State]:
    state = State(
        {
            "openai_serving_chat": Handler(answer),
            "openai_serving_models": SimpleNamespace(base_model_paths=[SimpleNamespace(name="tiny")]),
            "engine_client": Client(dead=dead, unfinished=unfinished),
            "vllm_config": SimpleNamespace(
                parallel_config=SimpleNamespace(data_parallel_size=replicas, _api_process_count=processes),
                scheduler_config=SimpleNamespace(max_num_seqs=8),
            ),
            "args": SimpleNamespace(sse_keep_alive_interval=keep_alive),
            "enable_server_load_tracking": track_load,
            "server_load_metrics": 0,
        }
    )
    return VllmEngine(state), state


def raising(error: Exception) -> Answer:
    def answer() -> Any:
        raise error

    return answer


def streaming(*events: str) -> Answer:
    async def generate() -> AsyncIterator[str]:
        for event in events:
            yield event

    return generate


def whole() -> ChatCompletionResponse:
    return ChatCompletionResponse(
        model="tiny", choices=[], usage=UsageInfo(), prompt_logprobs=[None, {3: Logprob(-1.0)}]
    )


async def test_a_whole_answer_is_a_dict_that_json_can_hold() -> None:
    engine, _ = engine_over(whole)
    completion = await engine.complete(REQUEST)
    assert completion["object"] == "chat.completion"
    assert list(completion["prompt_logprobs"][1]) == ["3"]


async def test_vllm_sees_the_headers_and_the_request_id() -> None:
    engine, state = engine_over(whole)
    await engine.complete(REQUEST)
    ((request, raw_request),) = state.openai_serving_chat.asked
    assert request.stream is False
    assert raw_request.headers["X-Request-Id"] == "r1"
    assert raw_request.headers["X-data-parallel-rank"] == "1"
    assert raw_request.headers["traceparent"] == "00-a-b-01"


async def test_the_events_of_a_stream_pass_as_they_are() -> None:
    engine, state = engine_over(streaming('data: {"id":"é"}\n\n', "data: [DONE]\n\n"))
    assert [event async for event in engine.stream(REQUEST)] == ['data: {"id":"é"}\n\n'.encode(), DONE]
    assert state.openai_serving_chat.asked[0][0].stream is True


async def test_closing_a_stream_closes_the_one_of_vllm() -> None:
    closed = []

    async def generate() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "data: {}\n\n"
        finally:
            closed.append(True)

    engine, _ = engine_over(generate)
    async with aclosing(engine.stream(REQUEST)) as events:
        await anext(events)
    assert closed == [True]


async def test_an_idle_stream_is_kept_alive_where_vllm_is_told_to() -> None:
    async def generate() -> AsyncGenerator[str, None]:
        await asyncio.sleep(1.2)
        yield "data: [DONE]\n\n"

    engine, _ = engine_over(generate, keep_alive=1)
    assert [event async for event in engine.stream(REQUEST)] == [b": keep-alive\n\n", DONE]


async def test_load_is_tracked_while_a_request_runs() -> None:
    engine, state = engine_over(streaming("data: {}\n\n", "data: [DONE]\n\n"), track_load=True)
    loads = [state.server_load_metrics async for _ in engine.stream(REQUEST)]
    assert loads == [1, 1]
    assert state.server_load_metrics == 0


async def test_load_is_given_back_when_a_request_fails() -> None:
    engine, state = engine_over(raising(EngineDeadError()), track_load=True)
    with pytest.raises(EngineUnavailable):
        await engine.complete(REQUEST)
    assert state.server_load_metrics == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineDeadError(), EngineUnavailable),
        (QueueOverflowError(), EngineUnavailable),
        (EngineGenerateError("no"), EngineFailed),
        (VLLMValidationError("too hot", parameter="temperature", value=9), EngineRejected),
        (VLLMValidationError("too long", parameter="input_tokens", value=9), ContextOverflow),
        (ValueError("n must be 1"), EngineRejected),
        (NotImplementedError("beams"), EngineRejected),
    ],
)
async def test_what_vllm_raises_is_translated(error: Exception, expected: type[RheostatError]) -> None:
    engine, _ = engine_over(raising(error))
    with pytest.raises(expected):
        await engine.complete(REQUEST)


async def test_what_is_no_error_of_vllm_stays_a_bug() -> None:
    engine, _ = engine_over(raising(KeyError("x")))
    with pytest.raises(KeyError):
        await engine.complete(REQUEST)


async def test_a_refusal_keeps_its_status_type_and_field() -> None:
    refusal = ErrorResponse(error=ErrorInfo(message="no", type="NotFoundError", param="model", code=404))
    engine, _ = engine_over(lambda: refusal)
    with pytest.raises(EngineRejected, match="no") as caught:
        await engine.complete(REQUEST)
    assert (caught.value.status, caught.value.type, caught.value.param) == (404, "NotFoundError", "model")


def error_event(status: int) -> str:
    body = ErrorResponse(error=ErrorInfo(message="broke", type="T", code=status))
    return f"data: {body.model_dump_json()}\n\n"


@pytest.mark.parametrize(
    ("status", "dead", "expected"),
    [(500, False, EngineFailed), (500, True, EngineUnavailable), (400, False, EngineRejected)],
)
async def test_an_error_event_of_vllm_is_raised_in_its_place(
    status: int, dead: bool, expected: type[RheostatError]
) -> None:
    engine, _ = engine_over(streaming("data: {}\n\n", error_event(status), "data: [DONE]\n\n"), dead=dead)
    events = engine.stream(REQUEST)
    assert await anext(events) == b"data: {}\n\n"
    with pytest.raises(expected):
        await anext(events)


def ended_by(reason: str) -> ChatCompletionResponse:
    """An answer of two choices, the second of which ended so."""
    choices = [
        ChatCompletionResponseChoice(index=index, message=ChatMessage(role="assistant", content=""), finish_reason=why)
        for index, why in enumerate(("stop", reason))
    ]
    return ChatCompletionResponse(model="tiny", choices=choices, usage=UsageInfo())


async def test_a_whole_answer_that_vllm_gave_up_is_none() -> None:
    engine, _ = engine_over(lambda: ended_by("length"))
    assert len((await engine.complete(REQUEST))["choices"]) == 2
    engine, _ = engine_over(lambda: ended_by("abort"))
    with pytest.raises(EngineUnavailable, match="gave the request up"):
        await engine.complete(REQUEST)


def chunk(text: str, reason: str | None = None) -> str:
    choice = ChatCompletionResponseStreamChoice(index=0, delta=DeltaMessage(content=text), finish_reason=reason)
    return f"data: {ChatCompletionStreamResponse(model='tiny', choices=[choice]).model_dump_json()}\n\n"


async def test_a_stream_that_vllm_gave_up_ends_with_an_error_and_one_that_speaks_of_it_does_not() -> None:
    engine, _ = engine_over(streaming(chunk('"finish_reason":"abort"'), chunk("", "abort"), "data: [DONE]\n\n"))
    events = engine.stream(REQUEST)
    assert b"abort" in await anext(events)
    with pytest.raises(EngineUnavailable, match="gave the request up"):
        await anext(events)


async def test_a_dead_engine_is_not_ready() -> None:
    alive, _ = engine_over(whole)
    await alive.check_ready()
    dead, _ = engine_over(whole, dead=True)
    with pytest.raises(EngineUnavailable, match="dead"):
        await dead.check_ready()


@pytest.mark.parametrize(
    ("unfinished", "processes", "replicas", "told"),
    [
        (3, 1, 1, Occupancy(running=3, waiting=0, room=8)),
        (11, 1, 1, Occupancy(running=8, waiting=3, room=8)),
        (3, 4, 1, Occupancy(running=2, waiting=1, room=2)),
        (3, 2, 3, Occupancy(running=3, waiting=0, room=12)),
        (1, 16, 1, Occupancy(running=1, waiting=0, room=1)),
    ],
)
async def test_each_api_server_process_counts_its_own_in_its_share_of_the_room(
    unfinished: int, processes: int, replicas: int, told: Occupancy
) -> None:
    engine, _ = engine_over(whole, unfinished=unfinished, processes=processes, replicas=replicas)
    assert await engine.occupancy() == told


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("temperature", "hot", "temperature"),
        ("messages", [{"role": "user", "content": 5}], "messages[0]"),
        ("stop", 5, "stop"),
        ("response_format", {"type": "x"}, "response_format"),
        ("seed", 10**30, "seed"),
    ],
)
async def test_a_wrong_value_names_its_field(field: str, value: object, param: str) -> None:
    engine, _ = engine_over(whole)
    with pytest.raises(BadRequest) as caught:
        await engine.complete(EngineRequest({**BODY, field: value}, "r1"))
    assert caught.value.param == param
    assert "ChatCompletion" not in caught.value.message


@pytest.mark.parametrize("field", ["temprature", "guided_json", "best_of"])
async def test_a_field_that_vllm_would_ignore_is_refused(field: str) -> None:
    engine, _ = engine_over(whole)
    with pytest.raises(UnsupportedField, match=field):
        await engine.complete(EngineRequest({**BODY, field: 1}, "r1"))


async def test_fields_of_openai_that_change_no_answer_pass() -> None:
    engine, _ = engine_over(whole)
    await engine.complete(EngineRequest({**BODY, "metadata": {"a": "b"}, "store": False}, "r1"))


def test_the_served_names_are_the_models() -> None:
    engine, _ = engine_over(whole)
    assert cast("list[str]", engine.models()) == ["tiny"]
