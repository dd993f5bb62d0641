"""A stream's bytes: passed on unread, but for a glance at where an error or the end may stand."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from rheostat_server.engines.remote.refusals import error_event_error
from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.errors import EngineFailed
from rheostat_server.sse import EVENT_END

# An answer's text cannot hold these bytes: in JSON its quotes are escaped.
_ERROR_EVENT: Final = b'data: {"error"'
_LAST_EVENT: Final = b"data: [DONE]"
_GLANCE: Final = len(_ERROR_EVENT) + 8


async def watched(chunks: AsyncIterator[bytes], upstream: Upstream) -> AsyncGenerator[bytes, None]:
    """The chunks as they come.

    Raises:
        EngineFailed: the upstream told of an error, or its stream ended before `data: [DONE]`.
    """
    tail = b""
    async for chunk in chunks:
        seen = tail + chunk
        found = seen.find(_ERROR_EVENT)
        if found >= 0:
            if found > len(tail):
                yield chunk[: found - len(tail)]
            raise error_event_error(await _event(seen[found:], chunks), upstream)
        tail = seen[-_GLANCE:]
        yield chunk
    if not tail.rstrip().endswith(_LAST_EVENT):
        raise EngineFailed("the upstream server ended its stream before data: [DONE]")


async def _event(begun: bytes, rest: AsyncIterator[bytes]) -> bytes:
    """The JSON of the event that has begun."""
    while EVENT_END not in begun and (more := await anext(rest, b"")):
        begun += more
    return begun.partition(EVENT_END)[0].removeprefix(b"data: ")
