"""Server-sent events that pass through unread, with the receipt put in before the last one."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

import orjson

from rheostat_server.engines import DONE
from rheostat_server.errors import EngineFailed

EVENT_END: Final = b"\n\n"
_LAST_EVENT: Final = re.compile(rb"(?<=\n)data: ?\[DONE\]\s{0,8}\Z")
_LAST_EVENT_ROOM: Final = 32
_DATA_LINE: Final = re.compile(rb"^data:(.*)\n", re.MULTILINE)
_HEAD_LIMIT: Final = 1 << 20


def event(payload: object) -> bytes:
    """One event that holds a JSON value."""
    return b"data: " + orjson.dumps(payload) + EVENT_END


async def receipt_before_done(
    first: bytes, rest: AsyncIterator[bytes], receipt: Callable[[], dict[str, Any]]
) -> AsyncGenerator[bytes, None]:
    """Passes chunks on, holding back no more than what may be the beginning of `data: [DONE]`.

    The first event alone is read, once, for the identity that the receipt's event must share. Chunks may be cut
    anywhere.

    Raises:
        EngineFailed: the stream ended without `data: [DONE]`.
    """
    head = b""
    held = b""
    before = b"\n"
    chunk: bytes | None = first
    while chunk is not None:
        head = _grown(head, chunk)
        passed, held, done = _split(held + chunk, before)
        if passed:
            yield passed
            before = passed[-1:]
        if done:
            yield event({**_identity(head), "choices": [], "control": receipt()})
            yield DONE
            return
        chunk = await anext(rest, None)
    raise EngineFailed("the engine's stream ended without its last event, data: [DONE]")


def _split(chunk: bytes, before: bytes) -> tuple[bytes, bytes, bool]:
    """What can be passed on, what must wait for more, and whether the last event was reached.

    `before` is the byte passed on last: only where it ends a line does the chunk begin one.
    """
    if chunk.endswith(EVENT_END) and b"[DONE]" not in chunk[-_LAST_EVENT_ROOM:]:
        return chunk, b"", False
    text = before + chunk
    if found := _LAST_EVENT.search(text):
        return text[1 : found.start()], b"", True
    line = text.rfind(b"\n") + 1
    if 0 < line < len(text) and DONE.startswith(text[line:]):
        return text[1:line], text[line:], False
    return chunk, b"", False


def _grown(head: bytes, chunk: bytes) -> bytes:
    """The stream's beginning up to its first event with data; comments that keep it alive may come before."""
    return head if _DATA_LINE.search(head) or len(head) > _HEAD_LIMIT else head + chunk


def _identity(head: bytes) -> dict[str, Any]:
    """`id`, `created` and `model` of the stream's first event; what cannot be read is left out."""
    known: dict[str, Any] = {}
    if line := _DATA_LINE.search(head):
        with suppress(orjson.JSONDecodeError):
            first = orjson.loads(line[1])
            if isinstance(first, dict):
                known = {name: first[name] for name in ("id", "created", "model") if name in first}
    return {"object": "chat.completion.chunk", **known}
