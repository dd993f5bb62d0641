"""The Engine in front of an upstream server: whole answers are checked, streams pass through."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Final

import httpx
import orjson

from rheostat_server.engines import Completion, EngineRequest, Occupancy, Streams
from rheostat_server.engines.remote.answers import check_content_type, read_completion
from rheostat_server.engines.remote.catalog import Adapters, check_alive, ensure_adapters, read_catalog, served_models
from rheostat_server.engines.remote.events import watched
from rheostat_server.engines.remote.occupancy import UpstreamOccupancy
from rheostat_server.engines.remote.refusals import network_errors_as_ours, refusal_error
from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.engines.separate import COUNTED, separate_streams
from rheostat_server.errors import CannotStart, EngineUnavailable, RheostatError

FORWARDED_HEADERS: Final = frozenset({"traceparent", "tracestate"})
"""The caller's headers that go upstream; its key and cookies are ours to know, not the upstream's."""
READY_SECONDS: Final = 1.0
"""For how long an upstream that was found ready is believed to be."""


@dataclass(slots=True)
class RemoteEngine:
    """Sends each request to the upstream server; one that is cancelled closes its connection, which frees it there.

    `is_vllm` says that the upstream knows vLLM's stream options; `sequences` is how many it runs at once.
    """

    upstream: Upstream
    served: Sequence[str]
    adapters: Sequence[str] = ()
    name: str = "remote"
    is_vllm: bool = False
    sequences: int = 256
    _client: httpx.AsyncClient = field(init=False)
    _occupancy: UpstreamOccupancy = field(init=False)
    _ready_until: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._client = self.upstream.client()
        self._occupancy = UpstreamOccupancy(self.upstream, self.sequences)

    @classmethod
    async def connect(
        cls,
        upstream: Upstream,
        *,
        model: str | None = None,
        adapters: Adapters | None = None,
        load_adapters: bool = False,
        sequences: int = 256,
    ) -> "RemoteEngine":
        """An engine for the models that the upstream has; it may run on another event loop than this.

        Raises:
            CannotStart: the upstream cannot be reached, or lacks the model or an adapter; the message says how to
                start it.
        """
        wanted = adapters or {}
        async with upstream.client() as client:
            try:
                catalog = await read_catalog(client, upstream)
                served = served_models(catalog, model, wanted)
                await ensure_adapters(client, upstream, catalog, wanted, load=load_adapters)
            except RheostatError as exc:
                raise CannotStart(f"{upstream.url}: {exc.message}") from exc
        return cls(upstream, served, list(wanted), is_vllm=catalog.is_vllm, sequences=sequences)

    @property
    def takes_n(self) -> bool:
        """Other servers than vLLM may refuse `n`, or answer with one choice whatever it says."""
        return self.is_vllm

    def models(self) -> Sequence[str]:
        return self.served

    async def check_ready(self) -> None:
        if time.monotonic() < self._ready_until:
            return
        try:
            await check_alive(self._client, self.upstream)
            catalog = await read_catalog(self._client, self.upstream)
        except RheostatError as exc:
            raise EngineUnavailable(exc.message) from exc
        if missing := catalog.lacks([*self.served, *self.adapters]):
            raise EngineUnavailable(f"the upstream server no longer has {', '.join(missing)}")
        self._ready_until = time.monotonic() + READY_SECONDS

    async def complete(self, request: EngineRequest) -> Completion:
        with network_errors_as_ours(), self._occupancy.counted(request.body.get("n") or 1):
            response = await self._client.send(self._outgoing(request, stream=False))
        if response.status_code != 200:
            raise refusal_error(response, response.content, self.upstream)
        return read_completion(response, self.upstream)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        with self._occupancy.counted(request.body.get("n") or 1):
            async with aclosing(self._events(request)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def fan_out(self, request: EngineRequest, n: int) -> AbstractAsyncContextManager[Streams]:
        """Requests of their own, so that each can be aborted; an upstream that caches prefixes reads their prompt once.

        Other servers than vLLM count tokens once, at the end of a stream.
        """
        return separate_streams(self, request, n, COUNTED if self.is_vllm else {"include_usage": True})

    async def occupancy(self) -> Occupancy:
        return await self._occupancy.now(self._client)

    async def _events(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        with network_errors_as_ours():
            response = await self._client.send(self._outgoing(request, stream=True), stream=True)
        async with aclosing(response):
            with network_errors_as_ours(midway=True):
                if response.status_code != 200:
                    raise refusal_error(response, await response.aread(), self.upstream)
                check_content_type(response, "text/event-stream")
                async with aclosing(watched(response.aiter_bytes(), self.upstream)) as chunks:
                    async for chunk in chunks:
                        yield chunk

    async def close(self) -> None:
        await self._client.aclose()

    def _outgoing(self, request: EngineRequest, *, stream: bool) -> httpx.Request:
        headers = {name: value for name, value in request.headers.items() if name in FORWARDED_HEADERS}
        headers |= {"content-type": "application/json", "x-request-id": request.request_id}
        return self._client.build_request(
            "POST",
            f"{self.upstream.api}/chat/completions",
            content=orjson.dumps({**request.body, "stream": stream}),
            headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        )
