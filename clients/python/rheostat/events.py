"""Streams of server-sent events, read without the network: bytes in, values out."""

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from rheostat.answers import Answer, Point
from rheostat.errors import SHOWN, StreamFailed, UnreadableAnswer, stream_failed
from rheostat.reply import Reply

T = TypeVar("T")
Chunk = Mapping[str, Any]
_DATA: Final = b"data:"
_DONE: Final = b"[DONE]"
_UNREADABLE: Final = (KeyError, TypeError, ValueError, IndexError, AttributeError)


class Reading(Generic[T]):
    """What the events of one stream come to, wherever its bytes are cut.

    Lines end at line feeds alone: a JSON text may hold other characters at which Python cuts a string into lines.
    """

    def __init__(self, request_id: str | None) -> None:
        self.request_id = request_id
        self.ended = False
        self._cut = b""
        self._lines: list[bytes] = []

    def take(self, data: bytes) -> Iterator[T]:
        """The values that are whole by now.

        Raises:
            StreamFailed: an event bears the error that ended the stream.
            UnreadableAnswer: an event is none of this stream.
        """
        for text in self._texts(data):
            chunk = self._parsed(text)
            if chunk.get("error") is not None and not self._is_value(chunk):
                raise stream_failed(chunk, self.request_id)
            try:
                value = self._read(chunk)
            except _UNREADABLE as exc:
                raise self._unreadable(text) from exc
            if value is not None:
                yield value

    def finish(self) -> None:
        """Raises StreamFailed where the stream was not at its end."""
        if not self.ended:
            raise self.cut_off("the connection ended")

    def cut_off(self, why: str) -> StreamFailed:
        return StreamFailed(f"the stream was cut off before its end: {why}", request_id=self.request_id)

    @abstractmethod
    def _read(self, chunk: Chunk) -> T | None:
        """The value of an event, or None where it has none."""

    def _is_value(self, chunk: Chunk) -> bool:
        """Whether an event that bears an error is a value all the same."""
        return False

    def _texts(self, data: bytes) -> Iterator[bytes]:
        *lines, self._cut = (self._cut + data).split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                self._lines.append(line.removeprefix(_DATA).strip())
            elif not line.strip(b"\r") and self._lines:
                text, self._lines = b"\n".join(self._lines), []
                if text == _DONE:
                    self.ended = True
                else:
                    yield text

    def _parsed(self, text: bytes) -> Chunk:
        try:
            chunk = json.loads(text)
        except ValueError as exc:
            raise self._unreadable(text) from exc
        if not isinstance(chunk, dict):
            raise self._unreadable(text)
        return chunk

    def _unreadable(self, text: bytes) -> UnreadableAnswer:
        shown = text[:SHOWN].decode(errors="replace")
        return UnreadableAnswer(f"the stream holds {shown!r}, which is none of its events", request_id=self.request_id)


class ChatReading(Reading[str]):
    """The first choice's text in pieces. `chunks` are all events as the server sent them."""

    def __init__(self, request_id: str | None) -> None:
        super().__init__(request_id)
        self.chunks: list[Chunk] = []
        self._pieces: list[str] = []
        self._told: dict[str, Any] = {}
        self._finish_reason: str | None = None

    def finish(self) -> None:
        """Raises UnreadableAnswer too, where what was told beside the pieces makes no answer."""
        self.answer()

    def answer(self) -> Answer:
        """The pieces as one answer; calls of tools are in `chunks` alone. Raises StreamFailed before the end."""
        super().finish()
        if "control" not in self._told:
            raise self.cut_off("it bears no receipt, as a Rheostat server's does")
        try:
            return Answer.of(Reply(self._whole(), self.request_id))
        except _UNREADABLE as exc:
            raise self._unreadable(json.dumps(self._told).encode()) from exc

    def _whole(self) -> Mapping[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(self._pieces)},
            "finish_reason": self._finish_reason,
        }
        return {**self._told, "object": "chat.completion", "choices": [choice]}

    def _read(self, chunk: Chunk) -> str | None:
        self.chunks.append(chunk)
        named = ("id", "created", "model", "usage", "control")
        self._told |= {name: chunk[name] for name in named if chunk.get(name) is not None}
        for choice in chunk["choices"]:
            if choice["index"] == 0:
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
                if piece := choice["delta"].get("content"):
                    self._pieces.append(piece)
                    return str(piece)
        return None


class SweepReading(Reading[Point]):
    """Points as they are reached; one may bear an error in the place of its answer."""

    def _read(self, chunk: Chunk) -> Point:
        return Point.of(Reply(chunk, self.request_id))

    def _is_value(self, chunk: Chunk) -> bool:
        return "index" in chunk
