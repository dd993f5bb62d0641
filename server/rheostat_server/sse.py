"""Server-sent events that pass through unread, with the receipt put in before the last one."""

import re
from contextlib import suppress
from typing import Any, Final

import orjson

from rheostat_server.engines import DONE

EVENT_END: Final = b"\n\n"
DATA: Final = b"data:"
_LAST_EVENT: Final = re.compile(rb"(?<=\n)data: ?\[DONE\]\s{0,8}\Z")
_LAST_EVENT_ROOM: Final = 32
_DATA_LINE: Final = re.compile(rb"^data:(.*)\n", re.MULTILINE)
_HEAD_LIMIT: Final = 1 << 20
_DONE: Final = b"[DONE]"


def event(payload: object) -> bytes:
    """One event that holds a JSON value."""
    return b"data: " + orjson.dumps(payload) + EVENT_END


class EventReader:
    """The data of a stream's events, wherever its chunks are cut; comments have none."""

    __slots__ = ("_cut",)

    def __init__(self) -> None:
        self._cut = b""

    def take(self, chunk: bytes) -> list[bytes]:
        """Of the events that are whole by now, all but `[DONE]`."""
        *whole, self._cut = (self._cut + chunk.replace(b"\r\n", b"\n")).split(EVENT_END)
        return [data for block in whole if (data := _data_of(block)) and data != _DONE]


def _data_of(block: bytes) -> bytes:
    return b"\n".join(line[len(DATA) :].strip() for line in block.split(b"\n") if line.startswith(DATA))


class Passage:
    """The chunks of one stream on their way through, wherever they are cut.

    It holds back no more than what may be the beginning of `data: [DONE]`, and reads the first event alone, once, for
    the identity that the receipt's event must share. It is no generator: a chunk costs one call on its way.
    """

    __slots__ = ("_before", "_head", "_head_is_whole", "_held", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._held = b""
        self._before = b"\n"
        self._head = b""
        self._head_is_whole = False

    def let_through(self, chunk: bytes) -> bytes:
        """What may be sent on now, perhaps nothing. Once `ended` is true the last event has come and is kept back."""
        if not self._head_is_whole:
            self._read_head(chunk)
        if not self._held and chunk.endswith(EVENT_END) and chunk.find(b"[DONE]", -_LAST_EVENT_ROOM) < 0:
            self._before = b"\n"
            return chunk
        passed, self._held, self.ended = _split(self._held + chunk, self._before)
        self._before = passed[-1:] or self._before
        return passed

    def last_events(self, receipt: dict[str, Any]) -> bytes:
        """The event that carries the receipt, and the last one."""
        return event({**_identity(self._head), "choices": [], "control": receipt}) + DONE

    def _read_head(self, chunk: bytes) -> None:
        """Keeps the beginning up to its first event with data; comments that keep it alive may come before."""
        self._head += chunk
        self._head_is_whole = bool(_DATA_LINE.search(self._head)) or len(self._head) > _HEAD_LIMIT


def _split(chunk: bytes, before: bytes) -> tuple[bytes, bytes, bool]:
    """What can be passed on, what must wait for more, and whether the last event was reached.

    `before` is the byte passed on last: only where it ends a line does the chunk begin one.
    """
    text = before + chunk
    if found := _LAST_EVENT.search(text):
        return text[1 : found.start()], b"", True
    line = text.rfind(b"\n") + 1
    if 0 < line < len(text) and DONE.startswith(text[line:]):
        return text[1:line], text[line:], False
    return chunk, b"", False


def _identity(head: bytes) -> dict[str, Any]:
    """`id`, `created` and `model` of the stream's first event; what cannot be read is left out."""
    known: dict[str, Any] = {}
    if line := _DATA_LINE.search(head):
        with suppress(orjson.JSONDecodeError):
            first = orjson.loads(line[1])
            if isinstance(first, dict):
                known = {name: first[name] for name in ("id", "created", "model") if name in first}
    return {"object": "chat.completion.chunk", **known}
