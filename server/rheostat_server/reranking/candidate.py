"""One candidate as it grows: its stream's events, and the text that they hold."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import orjson

from rheostat_server.errors import EngineFailed, RheostatError
from rheostat_server.sse import EventReader

Event = dict[str, Any]


class Candidate:
    """Reads one stream to its end in a task of its own, until it is dropped.

    `tokens` are counted by the engine where its events tell their number (`counted`), else by events with content.
    """

    def __init__(self, stream: AsyncGenerator[bytes, None]) -> None:
        self.events: list[Event] = []
        self.tokens = 0
        self.counted = False
        self.finish_reason: str | None = None
        self.ended = False
        self.error: RheostatError | None = None
        self._text: list[str] = []
        self._reader = EventReader()
        self._changed = asyncio.Event()
        self.reading = asyncio.ensure_future(self._read(stream))

    @property
    def text(self) -> str:
        """What is written so far, and can be judged: content alone, neither reasoning nor calls of tools."""
        return "".join(self._text)

    @property
    def usage(self) -> Event | None:
        """The engine's last count of tokens, if it told any."""
        return next((event["usage"] for event in reversed(self.events) if event.get("usage")), None)

    async def whole(self) -> None:
        """Waits for its end.

        Raises:
            RheostatError: the engine failed it.
        """
        await self.until()
        self._raise_if_failed()

    async def until(self, *, tokens: int | None = None, events: int | None = None) -> None:
        """Waits until it has so many tokens or events, or has ended."""
        while not self.ended and not (
            (tokens is not None and self.tokens >= tokens) or (events is not None and len(self.events) >= events)
        ):
            self._changed.clear()
            await self._changed.wait()

    @property
    def failed(self) -> bool:
        """Whether the engine failed it. An error that is none of ours is a bug, and is raised here."""
        if self.reading.done() and not self.reading.cancelled():
            self.reading.result()
        return self.error is not None

    async def live(self) -> AsyncGenerator[Event, None]:
        """Its events from the first one on, as they come.

        Raises:
            RheostatError: the engine failed it.
        """
        told = 0
        while not (self.ended and told == len(self.events)):
            await self.until(events=told + 1)
            for event in self.events[told:]:
                yield event
                told += 1
        self._raise_if_failed()

    def _raise_if_failed(self) -> None:
        if self.failed and self.error:
            raise self.error

    async def _read(self, stream: AsyncGenerator[bytes, None]) -> None:
        try:
            async with aclosing(stream):
                async for chunk in stream:
                    self._take(chunk)
                    self._changed.set()
            if not any(event.get("choices") for event in self.events):
                raise EngineFailed("the engine's stream ended without a choice")
        except RheostatError as exc:
            self.error = exc
        finally:
            self.ended = True
            self._changed.set()

    def _take(self, chunk: bytes) -> None:
        for data in self._reader.take(chunk):
            self._take_event(_parsed(data))

    def _take_event(self, event: Event) -> None:
        self.events.append(event)
        counted = (event.get("usage") or {}).get("completion_tokens")
        for choice in event.get("choices") or ():
            content = (choice.get("delta") or {}).get("content")
            if content:
                self._text.append(content)
                self.tokens += counted is None
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if counted is not None:
            self.tokens, self.counted = counted, True


async def drop(candidates: Iterable[Candidate]) -> None:
    """Frees candidates in the engine, and returns when it is done; those that have ended are no matter.

    Whoever waits may be cancelled again and again (anyio does so until a scope is left); a stream that is still read
    must not be closed by another, so this stays to the end and is cancelled then.
    """
    readings = {candidate.reading for candidate in candidates}
    for reading in readings:
        reading.cancel()
    cancelled: asyncio.CancelledError | None = None
    while pending := {reading for reading in readings if not reading.done()}:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


def _parsed(data: bytes) -> Event:
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise EngineFailed("the engine's stream holds an event that is no JSON") from exc
    if not isinstance(event, dict):
        raise EngineFailed("the engine's stream holds an event that is no object")
    return event
