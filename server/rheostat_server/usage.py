"""How many tokens a stream took: the engine is asked for it, and the caller sees it only if it asked too."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import orjson

from rheostat_server.engines import EngineRequest
from rheostat_server.record import Record
from rheostat_server.sse import DATA, EVENT_END

_NONE_YET: Final = b',"usage":null'
"""What engines put into every chunk once they are asked; within a JSON text its quotes would be escaped."""


async def metered(
    stream: Callable[[EngineRequest], AsyncGenerator[bytes, None]], request: EngineRequest, record: Record
) -> AsyncGenerator[bytes, None]:
    """An engine's stream that is asked how many tokens it takes; they are noted, however it ends."""
    options = request.body.get("stream_options") or {}
    tally = UsageTally(options)
    asked = replace(request, body={**request.body, "stream_options": {**options, "include_usage": True}})
    try:
        async with aclosing(stream(asked)) as chunks:
            async for chunk in chunks:
                if passed := tally.let_through(chunk):
                    yield passed
        if rest := tally.rest():
            yield rest
    finally:
        record.usage = tally.known


class UsageTally:
    """Lets a stream's events through, and keeps their last `usage`; an event that holds nothing else is held back.

    Until the engine tells, each event counts as a token of the answer: so a stream that is cut off is not free.
    """

    __slots__ = ("_cut", "_events", "_wanted", "usage")

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options` are the `stream_options` that the caller gave."""
        self._wanted = bool(options.get("include_usage"))
        self._cut = b""
        self._events = 0
        self.usage: dict[str, Any] = {}

    def let_through(self, chunk: bytes) -> bytes:
        """Whole events of it; the beginning of one waits for its end."""
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", EVENT_END[:1])
        text = self._cut + chunk
        end = text.rfind(EVENT_END) + len(EVENT_END)
        if end < len(EVENT_END):
            self._cut = text
            return b""
        whole, self._cut = text[:end], text[end:]
        if not self._wanted:
            whole = whole.replace(_NONE_YET, b"")
        if b'"usage"' not in whole:
            self._events += whole.count(EVENT_END)
            return whole
        return b"".join(event + EVENT_END for event in whole.split(EVENT_END)[:-1] if self._passes(event))

    def rest(self) -> bytes:
        """What came after the last whole event."""
        rest, self._cut = self._cut, b""
        return rest

    @property
    def known(self) -> dict[str, Any]:
        """The engine's count, or ours of the answer alone."""
        return self.usage or {"completion_tokens": self._events, "total_tokens": self._events}

    def _passes(self, event: bytes) -> bool:
        self._events += 1
        if b'"usage"' not in event or not event.startswith(DATA):
            return True
        try:
            told = orjson.loads(event.removeprefix(DATA))
        except orjson.JSONDecodeError:
            return True
        if not isinstance(told, dict) or not isinstance(told.get("usage"), dict):
            return True
        self.usage = told["usage"]
        return self._wanted or bool(told.get("choices"))
