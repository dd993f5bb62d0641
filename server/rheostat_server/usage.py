"""How many tokens a request took, however it ended: by the engine's count, else by an estimate."""

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from typing import Any, Final

import orjson
import structlog

from rheostat_server.engines import ChatBody, EngineRequest
from rheostat_server.record import Record
from rheostat_server.sse import DATA, EVENT_END

log = structlog.get_logger(__name__)

BYTES_A_TOKEN: Final = 4
"""Of text, for an estimate where no engine counted."""
PRINTED: Final = ("messages", "tools", "functions", "documents")
"""The fields that a prompt is made of."""
_USAGE: Final = re.compile(rb',"usage":(\{(?:[^{}]|\{[^{}]*\})*\})')
"""As engines write it, without spaces; within a JSON text its quotes would be escaped."""
_NONE_YET: Final = b',"usage":null'
_NO_CHOICES: Final = b'"choices":[]'
_CHOICE: Final = re.compile(rb'"choices":\[\{"index":(\d+)')


def estimated(body: ChatBody, *, completion_tokens: int = 0) -> dict[str, Any]:
    """OpenAI's `usage` of a request whose prompt nobody counted, marked as `estimated`."""
    prompt = len(orjson.dumps([body[name] for name in PRINTED if body.get(name)])) // BYTES_A_TOKEN
    total = prompt + completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion_tokens, "total_tokens": total, "estimated": True}


def usage_of(completion: Mapping[str, Any], body: ChatBody) -> Mapping[str, Any]:
    """That of a whole answer; where the engine tells none, an estimate by the text."""
    told: Mapping[str, Any] | None = completion.get("usage")
    if told:
        return told
    _tell_once()
    written = sum(len(orjson.dumps(choice.get("message"))) for choice in completion["choices"])
    return estimated(body, completion_tokens=written // BYTES_A_TOKEN)


@cache
def _tell_once() -> None:
    log.warning("the engine does not tell how many tokens an answer took; they are estimated from its text")


async def metered(
    stream: Callable[[EngineRequest], AsyncGenerator[bytes, None]],
    request: EngineRequest,
    record: Record,
    *,
    counts_as_it_goes: bool,
) -> AsyncGenerator[bytes, None]:
    """An engine's stream that is asked how many tokens it takes; they are noted, however it ends."""
    options = request.body.get("stream_options") or {}
    tally = UsageTally(options)
    asked = {**options, "include_usage": True, **({"continuous_usage_stats": True} if counts_as_it_goes else {})}
    try:
        async with aclosing(stream(replace(request, body={**request.body, "stream_options": asked}))) as chunks:
            async for chunk in chunks:
                if passed := tally.let_through(chunk):
                    yield passed
        if rest := tally.rest():
            yield rest
    finally:
        if tally.events:
            record.usage = tally.known or estimated(request.body, completion_tokens=tally.events)


class UsageTally:
    """Lets a stream's events through as if no more had been asked for than by the caller, and keeps the counts.

    Those within a stream are each of one choice; the last one, in an event of its own, is of all.
    """

    __slots__ = ("_cut", "_each", "_last", "_of_choices", "_wanted", "events")

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options` are the `stream_options` that the caller gave."""
        self._wanted = bool(options.get("include_usage"))
        self._each = self._wanted and bool(options.get("continuous_usage_stats"))
        self._cut = b""
        self._last = b""
        self._of_choices: dict[bytes, bytes] = {}
        self.events = 0

    def let_through(self, chunk: bytes) -> bytes:
        """Whole events of it; the beginning of one waits for its end."""
        text = self._cut + chunk
        if b"\r" in text:
            text = text.replace(b"\r\n", EVENT_END[:1])
        *events, self._cut = text.split(EVENT_END)
        return b"".join(passed + EVENT_END for event in events if (passed := self._passed(event)))

    def rest(self) -> bytes:
        """What came after the last whole event."""
        rest, self._cut = self._cut, b""
        return rest

    @property
    def known(self) -> dict[str, Any]:
        """The engine's count of all choices, or its last ones of each together; empty where it told none."""
        if self._last:
            return dict(orjson.loads(self._last))
        told = [orjson.loads(raw) for raw in self._of_choices.values()]
        if not told:
            return {}
        completion = sum(each.get("completion_tokens") or 0 for each in told)
        prompt = told[0].get("prompt_tokens") or 0
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _passed(self, event: bytes) -> bytes:
        """What the caller gets of an event: nothing of one that holds a count alone, and was not asked for."""
        self.events += 1
        if b'"usage"' not in event:
            return event
        found = _USAGE.search(event)
        if found is None:
            return self._passed_otherwise(event)
        if _NO_CHOICES in event:
            self._last = found[1]
            return event if self._wanted else b""
        choice = _CHOICE.search(event)
        self._of_choices[choice[1] if choice else b""] = found[1]
        if self._each:
            return event
        return event[: found.start()] + (_NONE_YET if self._wanted else b"") + event[found.end() :]

    def _passed_otherwise(self, event: bytes) -> bytes:
        """An event without a count, or of an engine that writes JSON with spaces."""
        if _NONE_YET in event:
            return event if self._wanted else event.replace(_NONE_YET, b"")
        if not event.startswith(DATA):
            return event
        try:
            told = orjson.loads(event.removeprefix(DATA))
        except orjson.JSONDecodeError:
            return event
        if not isinstance(told, dict) or not isinstance(told.get("usage"), dict):
            return event
        self._last = orjson.dumps(told["usage"])
        return event if self._wanted or told.get("choices") else b""
