"""The Engine in front of an upstream server: whole answers are checked, streams pass through."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import orjson

from rheostat_server.engines import Completion, EngineRequest, Occupancy, Part, Streams
from rheostat_server.engines.remote.answers import check_content_type, read_completion
from rheostat_server.engines.remote.blends import UpstreamBlends
from rheostat_server.engines.remote.catalog import (
    Adapters,
    check_alive,
    ensure_adapters,
    read_catalog,
    restore_adapters,
    served_models,
)
from rheostat_server.engines.remote.events import watched
from rheostat_server.engines.remote.occupancy import UpstreamOccupancy
from rheostat_server.engines.remote.refusals import ModelGone, network_errors_as_ours, refusal_error
from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.engines.separate import COUNTED, separate_streams
from rheostat_server.errors import CannotStart, EngineFailed, EngineUnavailable, RheostatError

FORWARDED_HEADERS: Final = frozenset({"traceparent", "tracestate"})
"""The caller's headers that go upstream; its key and cookies are ours to know, not the upstream's."""
READY_SECONDS: Final = 1.0
"""For how long an upstream that was found ready is believed to be."""


@dataclass(slots=True)
class RemoteEngine:
    """Sends each request to the upstream server; one that is cancelled closes its connection, which frees it there.

    `is_vllm` says that the upstream knows vLLM's stream options; `sequences` is how many it runs at once. With
    `load_adapters`, those that the upstream has lost are loaded again when one is asked for; `blends` always are.
    """

    upstream: Upstream
    served: Sequence[str]
    adapters: Adapters = field(default_factory=dict)
    load_adapters: bool = False
    name: str = "remote"
    is_vllm: bool = False
    sequences: int = 256
    urgent_first: bool = False
    blends: UpstreamBlends | None = None
    _client: httpx.AsyncClient = field(init=False)
    _occupancy: UpstreamOccupancy = field(init=False)
    _ready_until: float = field(init=False, default=0.0)
    _restoring: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

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
        blends: UpstreamBlends | None = None,
        trials: Mapping[str, Sequence[Part]] | None = None,
    ) -> "RemoteEngine":
        """An engine for the models that the upstream has; it may run on another event loop than this.

        The `trials` are loaded once, to see that the upstream takes blends.

        Raises:
            CannotStart: the upstream cannot be reached, or lacks the model or an adapter; the message says how to
                start it.
        """
        wanted = adapters or {}
        async with upstream.client() as client:
            try:
                catalog = await read_catalog(client, upstream)
                served = served_models(catalog, model, {**wanted, **dict.fromkeys(trials or {}, Path())})
                await ensure_adapters(client, upstream, catalog, wanted, load=load_adapters)
                if blends is not None:
                    await blends.try_out(client, upstream, trials or {})
            except BaseException as exc:
                if blends is not None:
                    await blends.close(client, upstream)
                if isinstance(exc, RheostatError):
                    raise CannotStart(f"{upstream.url}: {exc.logged}") from exc
                raise
        return cls(upstream, served, wanted, load_adapters, is_vllm=catalog.is_vllm, sequences=sequences, blends=blends)

    @property
    def takes_n(self) -> bool:
        """Other servers than vLLM may refuse `n`, or answer with one choice whatever it says."""
        return self.is_vllm

    @property
    def counts_as_it_goes(self) -> bool:
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
            raise EngineUnavailable(exc.message, logged=exc.logged) from exc
        if self.load_adapters and catalog.lacks(list(self.adapters)):
            await self._restore()
            return
        if missing := catalog.lacks([*self.served, *self.adapters]):
            raise EngineUnavailable(f"the upstream server no longer has {', '.join(missing)}")
        self._ready_until = time.monotonic() + READY_SECONDS

    async def complete(self, request: EngineRequest) -> Completion:
        with self._occupancy.counted(request.body.get("n") or 1):
            return read_completion(await self._response(request, stream=False), self.upstream)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        with self._occupancy.counted(request.body.get("n") or 1):
            async with aclosing(self._events(request)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def fan_out(self, request: EngineRequest, n: int) -> AbstractAsyncContextManager[Streams]:
        """Requests of their own, so that each can be aborted; an upstream that caches prefixes reads their prompt once.

        Other servers than vLLM count tokens once, at the end of a stream.
        """
        return separate_streams(self, request, n, COUNTED if self.counts_as_it_goes else {"include_usage": True})

    @property
    def blend_room(self) -> int:
        return self.blends.room if self.blends else 0

    async def load_blend(self, address: str, parts: Sequence[Part]) -> None:
        if self.blends is None:
            raise EngineFailed("the server was started without blends")
        await self.blends.load(self._client, self.upstream, address, parts)

    async def unload_blend(self, address: str) -> None:
        if self.blends is not None:
            await self.blends.unload(self._client, self.upstream, address)

    async def occupancy(self) -> Occupancy:
        return await self._occupancy.now(self._client)

    async def _events(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        async with aclosing(await self._response(request, stream=True)) as response:
            check_content_type(response, "text/event-stream")
            with network_errors_as_ours(midway=True):
                async with aclosing(watched(response.aiter_bytes(), self.upstream)) as chunks:
                    async for chunk in chunks:
                        yield chunk

    async def _response(self, request: EngineRequest, *, stream: bool) -> httpx.Response:
        """The upstream's response, of the status 200; it is asked again where it had lost an adapter."""
        try:
            return await self._send(request, stream=stream)
        except ModelGone:
            model = request.body["model"]
            is_blend = self.blends is not None and model in self.blends.loaded
            if not (self.load_adapters or is_blend):
                raise
        if self.blends is not None and is_blend:
            await self.blends.restore(self._client, self.upstream, model)
        else:
            await self._restore()
        return await self._send(request, stream=stream)

    async def _send(self, request: EngineRequest, *, stream: bool) -> httpx.Response:
        with network_errors_as_ours():
            response = await self._client.send(self._outgoing(request, stream=stream), stream=stream)
        if response.status_code == 200:
            return response
        async with aclosing(response):
            with network_errors_as_ours(midway=True):
                raise refusal_error(response, await response.aread(), self.upstream)

    async def _restore(self) -> None:
        """Requests at once wait for one another: the first loads what is missing, and the others find it there."""
        async with self._restoring:
            await restore_adapters(self._client, self.upstream, self.adapters)

    async def close(self) -> None:
        if self.blends is not None:
            await self.blends.close(self._client, self.upstream)
        await self._client.aclose()

    def _outgoing(self, request: EngineRequest, *, stream: bool) -> httpx.Request:
        headers = {name: value.strip() for name, value in request.headers.items() if name in FORWARDED_HEADERS}
        headers |= {"content-type": "application/json", "x-request-id": request.request_id}
        return self._client.build_request(
            "POST",
            f"{self.upstream.api}/chat/completions",
            content=orjson.dumps({**request.body, "stream": stream}),
            headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        )
