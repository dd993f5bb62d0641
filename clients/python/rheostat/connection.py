"""Sends calls and opens streams, again where it is worth it: once for threads and once for an event loop."""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from itertools import count
from typing import Any, Final, TypeVar

import httpx

from rheostat.calls import MODELS, Call, read, refusal, request_id
from rheostat.errors import ConnectionFailed, RheostatError, TimedOut, UnreadableAnswer
from rheostat.retries import Retries

T = TypeVar("T")
BASE_URL: Final = "http://127.0.0.1:8000"
TIMEOUT: Final = httpx.Timeout(600.0, connect=5.0)
"""Seconds. A whole answer of a large model may take minutes, a connection may not."""
_MAY_PASS: Final = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
_KEY: Final = re.compile(r"[\x21-\x7e]+")
_log = logging.getLogger("rheostat")


def http_options(base_url: str | None, api_key: str | None, timeout: float | httpx.Timeout) -> dict[str, Any]:
    """What either kind of httpx client is made with. Raises ValueError for an address or a key that is none."""
    address = base_url or os.environ.get("RHEOSTAT_BASE_URL") or BASE_URL
    key = _key(api_key or os.environ.get("RHEOSTAT_API_KEY") or "")
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
        with self.open(call) as response:
            try:
                response.read()
            except httpx.RequestError as exc:
                raise cut_off(response, exc) from exc
            return read(call, response)

    @contextmanager
    def open(self, call: Call[Any]) -> Iterator[httpx.Response]:
        """The response, its body unread, which is closed with the block. A call is not sent again once it has begun."""
        response = self._response(call)
        try:
            yield response
        finally:
            response.close()

    def _model(self) -> str:
        if self._first_model is None:
            self._first_model = first_of(self.send(MODELS))
        return self._first_model

    def _response(self, call: Call[Any]) -> httpx.Response:
        if call.lacks_model:
            call = call.with_field("model", self._model())
        for failures in count(1):
            request = self.http.build_request(call.method, call.path, json=call.body)
            try:
                response = self.http.send(request, stream=True)
            except httpx.RequestError as exc:
                failure: RheostatError = unanswered(exc)
            else:
                if response.is_success:
                    return response
                failure = self._refusal(response)
            pause = self.retries.pause(failures, failure)
            if pause is None:
                raise failure
            tell_pause(call, failure, pause)
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _refusal(self, response: httpx.Response) -> RheostatError:
        try:
            response.read()
        except httpx.RequestError as exc:
            return cut_off(response, exc)
        finally:
            response.close()
        return refusal(response)


class AsyncConnection:
    """The same for an event loop."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries) -> None:
        self.http = http
        self.retries = retries
        self._first_model: str | None = None
        self._naming: asyncio.Task[str] | None = None

    async def send(self, call: Call[T]) -> T:
        async with self.open(call) as response:
            try:
                await response.aread()
            except httpx.RequestError as exc:
                raise cut_off(response, exc) from exc
            return read(call, response)

    @asynccontextmanager
    async def open(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        """The response, its body unread, which is closed with the block. A call is not sent again once it has begun."""
        response = await self._response(call)
        try:
            yield response
        finally:
            await response.aclose()

    async def _model(self) -> str:
        """Calls that need it at the same time wait for one request, which goes on where one of them is cancelled."""
        if self._first_model is not None:
            return self._first_model
        if self._naming is None:
            self._naming = asyncio.ensure_future(self._named())
        return await asyncio.shield(self._naming)

    async def _named(self) -> str:
        try:
            self._first_model = first_of(await self.send(MODELS))
            return self._first_model
        finally:
            self._naming = None

    async def _response(self, call: Call[Any]) -> httpx.Response:
        if call.lacks_model:
            call = call.with_field("model", await self._model())
        for failures in count(1):
            request = self.http.build_request(call.method, call.path, json=call.body)
            try:
                response = await self.http.send(request, stream=True)
            except httpx.RequestError as exc:
                failure: RheostatError = unanswered(exc)
            else:
                if response.is_success:
                    return response
                failure = await self._refusal(response)
            pause = self.retries.pause(failures, failure)
            if pause is None:
                raise failure
            tell_pause(call, failure, pause)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _refusal(self, response: httpx.Response) -> RheostatError:
        try:
            await response.aread()
        except httpx.RequestError as exc:
            return cut_off(response, exc)
        finally:
            await response.aclose()
        return refusal(response)


def unanswered(exc: httpx.RequestError) -> ConnectionFailed:
    """The error of a request that got no answer, with httpx's own as its cause."""
    why = f"{_where(exc)} did not answer: {str(exc) or type(exc).__name__}"
    timed_out = isinstance(exc, httpx.TimeoutException) and not isinstance(exc, httpx.ConnectTimeout)
    failure = TimedOut(why) if timed_out else ConnectionFailed(why, passing=isinstance(exc, _MAY_PASS))
    failure.__cause__ = exc
    return failure


def cut_off(response: httpx.Response, exc: httpx.RequestError) -> ConnectionFailed:
    """That of an answer which broke off: the server has done its work, so it is not asked for it again."""
    why = f"{_where(exc)} did not answer to the end: {str(exc) or type(exc).__name__}"
    status, request = response.status_code, request_id(response)
    if isinstance(exc, httpx.TimeoutException):
        failure: ConnectionFailed = TimedOut(why, status=status, request_id=request)
    else:
        failure = ConnectionFailed(why, passing=False, status=status, request_id=request)
    failure.__cause__ = exc
    return failure


def tell_pause(call: Call[Any], failure: RheostatError, pause: float) -> None:
    """For whoever wonders why an answer takes long; the log has neither the key nor what is asked."""
    what = failure.code or failure.status or type(failure).__name__
    _log.info("%s: %s; asking again in %.1f s", call.path, what, pause)


def first_of(models: list[str]) -> str:
    """Raises UnreadableAnswer where there is none that the caller may use."""
    if not models:
        raise UnreadableAnswer("the server names no model that this caller may use; name one with model=")
    return models[0]


def _where(exc: httpx.RequestError) -> httpx.URL:
    """Without the password that an address may have."""
    return exc.request.url.copy_with(username=None, password=None)


def _key(given: str) -> str:
    """Without the line's end that a key read from a file has. An error must not show it, so it is checked here."""
    key = given.strip()
    if key and not _KEY.fullmatch(key):
        raise ValueError("api_key is no key: one has visible ASCII characters alone (what was given is not shown)")
    return key


def _root(address: str) -> str:
    """With or without the `/v1` that OpenAI's clients want."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as exc:
        raise ValueError(f"base_url is {address!r}: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url is {address!r}; it must be an address such as {BASE_URL}")
    return address.rstrip("/").removesuffix("/v1")
