"""Sends calls and opens streams, again where it is worth it: once for threads and once for an event loop."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from itertools import count
from typing import Any, Final, TypeVar

import httpx

from rheostat.calls import MODELS, Call, read, refusal
from rheostat.errors import ConnectionFailed, RheostatError, TimedOut, UnreadableAnswer
from rheostat.retries import Retries

T = TypeVar("T")
BASE_URL: Final = "http://127.0.0.1:8000"
TIMEOUT: Final = httpx.Timeout(600.0, connect=5.0)
"""Seconds. A whole answer of a large model may take minutes, a connection may not."""
_MAY_PASS: Final = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)


def http_options(base_url: str | None, api_key: str | None, timeout: float | httpx.Timeout) -> dict[str, Any]:
    """What either kind of httpx client is made with. Raises ValueError for an address that is none."""
    address = base_url or os.environ.get("RHEOSTAT_BASE_URL") or BASE_URL
    key = api_key or os.environ.get("RHEOSTAT_API_KEY")
    headers = {"User-Agent": f"rheostat-python/{version('rheostat')}"}
    return {
        "base_url": _root(address),
        "timeout": timeout,
        "headers": headers | ({"Authorization": f"Bearer {key}"} if key else {}),
    }


class Connection:
    """A call that names no model gets the server's first one, which is asked for once."""

    def __init__(self, http: httpx.Client, retries: Retries) -> None:
        self.http = http
        self.retries = retries
        self._first_model: str | None = None

    def send(self, call: Call[T]) -> T:
        return read(call, self._response(call, stream=False))

    @contextmanager
    def open(self, call: Call[Any]) -> Iterator[httpx.Response]:
        """The response of a stream, which is closed with the block. It is not sent again once it has begun."""
        response = self._response(call, stream=True)
        try:
            yield response
        finally:
            response.close()

    def _model(self) -> str:
        if self._first_model is None:
            self._first_model = first_of(self.send(MODELS))
        return self._first_model

    def _response(self, call: Call[Any], *, stream: bool) -> httpx.Response:
        if call.lacks_model:
            call = call.with_field("model", self._model())
        for failures in count(1):
            try:
                request = self.http.build_request(call.method, call.path, json=call.body)
                response = self.http.send(request, stream=stream)
                if response.is_success:
                    return response
                response.read()
                failure: RheostatError = refusal(response)
            except httpx.RequestError as exc:
                failure = unanswered(exc)
            pause = self.retries.pause(failures, failure)
            if pause is None:
                raise failure
            time.sleep(pause)
        raise AssertionError("unreachable")


class AsyncConnection:
    """The same for an event loop."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries) -> None:
        self.http = http
        self.retries = retries
        self._first_model: str | None = None

    async def send(self, call: Call[T]) -> T:
        return read(call, await self._response(call, stream=False))

    @asynccontextmanager
    async def open(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        """The response of a stream, which is closed with the block. It is not sent again once it has begun."""
        response = await self._response(call, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def _model(self) -> str:
        if self._first_model is None:
            self._first_model = first_of(await self.send(MODELS))
        return self._first_model

    async def _response(self, call: Call[Any], *, stream: bool) -> httpx.Response:
        if call.lacks_model:
            call = call.with_field("model", await self._model())
        for failures in count(1):
            try:
                request = self.http.build_request(call.method, call.path, json=call.body)
                response = await self.http.send(request, stream=stream)
                if response.is_success:
                    return response
                await response.aread()
                failure: RheostatError = refusal(response)
            except httpx.RequestError as exc:
                failure = unanswered(exc)
            pause = self.retries.pause(failures, failure)
            if pause is None:
                raise failure
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")


def unanswered(exc: httpx.RequestError) -> ConnectionFailed:
    """The error of a request that got no answer, with httpx's own as its cause."""
    where = exc.request.url.copy_with(username=None, password=None)
    why = f"{where} did not answer: {str(exc) or type(exc).__name__}"
    timed_out = isinstance(exc, httpx.TimeoutException) and not isinstance(exc, httpx.ConnectTimeout)
    failure = TimedOut(why) if timed_out else ConnectionFailed(why, passing=isinstance(exc, _MAY_PASS))
    failure.__cause__ = exc
    return failure


def first_of(models: list[str]) -> str:
    """Raises UnreadableAnswer where there is none that the caller may use."""
    if not models:
        raise UnreadableAnswer("the server names no model that this caller may use; name one with model=")
    return models[0]


def _root(address: str) -> str:
    """With or without the `/v1` that OpenAI's clients want."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as exc:
        raise ValueError(f"base_url is {address!r}: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url is {address!r}; it must be an address such as {BASE_URL}")
    return address.rstrip("/").removesuffix("/v1")
