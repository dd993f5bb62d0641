"""A stream's bytes: whole events are passed on unread, but for a glance at whether one is an error or the end."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Final

import httpx

from rheostat_server.engines.remote.answers import ABORTED, GAVE_UP
from rheostat_server.engines.remote.refusals import error_event_error
from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.errors import EngineFailed, EngineUnavailable, RheostatError

# An answer's text cannot hold this: in JSON its quotes are escaped.
_ERROR_EVENT: Final = re.compile(rb'^data: ?(\{\s*"error".*)', re.MULTILINE)
_ABORTED: Final = f'"{ABORTED}"'.encode()
_ABORTED_EVENT: Final = re.compile(rb'^data:.*"finish_reason": ?' + _ABORTED, re.MULTILINE)
_LAST_EVENT: Final = re.compile(rb"^data: ?\[DONE\]\s*\Z", re.MULTILINE)
_EVENT_ENDS: Final = (b"\n\n", b"\n\r\n")
_END_SECONDS: Final = 0.5


async def watched(chunks: AsyncIterator[bytes], upstream: Upstream) -> AsyncGenerator[bytes, None]:
    """The events as they come; one that has only begun waits for its rest, so that no error follows half an event.

    Raises:
        EngineFailed: the upstream told of an error, or its stream ended before `data: [DONE]`.
        EngineUnavailable: the upstream gave the answer up.
    """
    begun = b""
    async for chunk in chunks:
        events, begun = _parted(begun + chunk)
        if failure := _failure_in(events, upstream):
            place, error = failure
            if place:
                yield events[:place]
            raise error
        if _LAST_EVENT.search(events):
            await _read_to_the_end(chunks)
            yield events
            return
        if events:
            yield events
    if failure := _failure_in(begun, upstream):
        raise failure[1]
    if not _LAST_EVENT.match(begun):
        raise EngineFailed("the upstream server ended its stream before data: [DONE]")
    yield begun


def _failure_in(events: bytes, upstream: Upstream) -> tuple[int, RheostatError] | None:
    """Where the upstream tells that it has failed, and our error for it."""
    if error := _ERROR_EVENT.search(events):
        return error.start(), error_event_error(error[1], upstream)
    if _ABORTED in events and (given_up := _ABORTED_EVENT.search(events)):
        return given_up.start(), EngineUnavailable(GAVE_UP)
    return None


def _parted(data: bytes) -> tuple[bytes, bytes]:
    """Whole events, and what has begun of the next one."""
    ends = [place + len(end) for end in _EVENT_ENDS if (place := data.rfind(end)) >= 0]
    end = max(ends, default=0)
    return data[:end], data[end:]


async def _read_to_the_end(chunks: AsyncIterator[bytes]) -> None:
    """Nothing comes after the last event but HTTP's own end; once it is read, the connection can be used again."""
    with suppress(TimeoutError, httpx.TransportError):
        async with asyncio.timeout(_END_SECONDS):
            async for _ in chunks:
                pass
