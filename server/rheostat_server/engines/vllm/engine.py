"""The Engine inside vLLM's server: calls what vLLM's own chat route would call."""

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from typing import Any, Final

from starlette.datastructures import State
from starlette.requests import Request
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive
from vllm.v1.engine.exceptions import EngineDeadError

from rheostat_server.engines import Completion, EngineRequest, Occupancy, Part, Streams
from rheostat_server.engines.separate import COUNTED, separate_streams
from rheostat_server.engines.vllm.blends import VllmBlends
from rheostat_server.engines.vllm.chat_body import chat_completion_request
from rheostat_server.engines.vllm.refusals import as_ours, foreign_errors_as_ours, read_error_event
from rheostat_server.errors import EngineFailed, EngineUnavailable

_ERROR_EVENT: Final = 'data: {"error"'
_ABORTED: Final = "abort"
"""The finish reason of an answer that vLLM gives up, as it does when it ends; what there is of it is no answer."""
_ABORTED_EVENT: Final = f'"finish_reason":"{_ABORTED}"'
"""Within a text its quotes would be escaped."""


GAVE_UP: Final = "vLLM gave the request up before its answer was whole; it ends, or an operator had it stop"


class VllmEngine:
    """Answers through `state.openai_serving_chat`, so every flag of `vllm serve` holds as on its own route.

    `state` is the app's, as vLLM's `init_app_state` leaves it. What vLLM's own route does besides is done here: server
    load tracking (`--enable-server-load-tracking`) and keep-alive comments (`--sse-keep-alive-interval`).
    """

    name = "vllm"
    takes_n = True
    counts_as_it_goes = True
    urgent_first = False

    def __init__(self, state: State, blends: VllmBlends | None = None) -> None:
        self._state = state
        self._blends = blends
        self._keep_alive = float(state.args.sse_keep_alive_interval)
        self._room = _room(state.vllm_config)

    def models(self) -> Sequence[str]:
        return [model.name for model in self._state.openai_serving_models.base_model_paths]

    async def check_ready(self) -> None:
        try:
            await self._state.engine_client.check_health()
        except EngineDeadError as exc:
            raise EngineUnavailable("vLLM's engine process is dead; its log says why") from exc

    async def complete(self, request: EngineRequest) -> Completion:
        with self._load_tracked():
            answer = await self._start(request, stream=False)
        if not isinstance(answer, ChatCompletionResponse):
            raise EngineFailed(f"vLLM answered a whole request with a {type(answer).__name__}")
        if any(choice.finish_reason == _ABORTED for choice in answer.choices):
            raise EngineUnavailable(GAVE_UP)
        completion: Completion = answer.model_dump(mode="json")
        return completion

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        with self._load_tracked():
            events = with_sse_keep_alive(await self._start(request, stream=True), self._keep_alive)
            async with aclosing(events):
                async for event in events:
                    if event.startswith(_ERROR_EVENT):
                        await self.check_ready()
                        raise read_error_event(event)
                    if _ABORTED_EVENT in event:
                        raise EngineUnavailable(GAVE_UP)
                    yield event.encode()

    def fan_out(self, request: EngineRequest, n: int) -> AbstractAsyncContextManager[Streams]:
        """Requests of their own, so that each can be aborted; vLLM's prefix cache reads their prompt once."""
        return separate_streams(self, request, n, COUNTED)

    @property
    def blend_room(self) -> int:
        return self._blends.room if self._blends else 0

    async def load_blend(self, address: str, parts: Sequence[Part]) -> None:
        if self._blends is None:
            raise EngineFailed("the server was started without blends")
        await self._blends.load(address, parts)

    async def unload_blend(self, address: str) -> None:
        if self._blends is not None:
            await self._blends.unload(address)

    async def occupancy(self) -> Occupancy:
        """By what this API server process has in the engine; several of them share its room evenly."""
        running = self._state.engine_client.output_processor.get_num_unfinished_requests()
        return Occupancy(running=min(running, self._room), waiting=max(0, running - self._room), room=self._room)

    async def close(self) -> None:
        """vLLM's server owns the engine and ends it."""
        if self._blends is not None:
            self._blends.files.remove()

    async def _start(self, request: EngineRequest, *, stream: bool) -> Any:
        """The whole answer, or the generator of a stream's events."""
        with foreign_errors_as_ours():
            answer = await self._state.openai_serving_chat.create_chat_completion(
                chat_completion_request(request.body, stream=stream), _raw_request(request)
            )
        if isinstance(answer, ErrorResponse):
            raise as_ours(answer)
        return answer

    @contextmanager
    def _load_tracked(self) -> Generator[None, None, None]:
        """Counts the request in what vLLM's `/load` reports."""
        if not self._state.enable_server_load_tracking:
            yield
            return
        self._state.server_load_metrics += 1
        try:
            yield
        finally:
            self._state.server_load_metrics -= 1


def _room(config: Any) -> int:
    """Sequences that vLLM runs at once, over all its replicas, as this process' share."""
    parallel = config.parallel_config
    most = config.scheduler_config.max_num_seqs * parallel.data_parallel_size
    return max(1, int(most) // int(parallel._api_process_count))


def _raw_request(request: EngineRequest) -> Request:
    """What vLLM reads of an HTTP request: its headers (request id, data-parallel rank, priority, session, tracing)."""
    headers = {**request.headers, "x-request-id": request.request_id}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "headers": encoded})
