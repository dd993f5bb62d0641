"""An open stream: its values as they come. Leaving its `with` block closes the connection, at the end or before."""

from collections.abc import AsyncIterator, Iterator
from typing import Generic, TypeVar

import httpx

from rheostat.answers import Answer
from rheostat.events import ChatReading, Chunk, Reading
from rheostat.receipt import Receipt

T = TypeVar("T")


class Stream(Generic[T]):
    """Raises StreamFailed where it is cut off or ends with an error: it never ends in silence.

    A second loop over it goes on where the first one was left.
    """

    def __init__(self, response: httpx.Response, reading: Reading[T]) -> None:
        self._response = response
        self._reading = reading
        self._values = self._read()

    def __iter__(self) -> Iterator[T]:
        return self._values

    def __next__(self) -> T:
        return next(self._values)

    def _read(self) -> Iterator[T]:
        try:
            for data in self._response.iter_bytes():
                yield from self._reading.take(data)
        except httpx.HTTPError as exc:
            if not self._reading.ended:
                raise self._reading.cut_off(str(exc) or type(exc).__name__) from exc
        self._reading.finish()


class AsyncStream(Generic[T]):
    """The same for `async for`."""

    def __init__(self, response: httpx.Response, reading: Reading[T]) -> None:
        self._response = response
        self._reading = reading
        self._values = self._read()

    def __aiter__(self) -> AsyncIterator[T]:
        return self._values

    async def __anext__(self) -> T:
        return await anext(self._values)

    async def _read(self) -> AsyncIterator[T]:
        try:
            async for data in self._response.aiter_bytes():
                for value in self._reading.take(data):
                    yield value
        except httpx.HTTPError as exc:
            if not self._reading.ended:
                raise self._reading.cut_off(str(exc) or type(exc).__name__) from exc
        self._reading.finish()


class _Told:
    """What a chat's stream has told; the answer and its receipt once it has been read to its end."""

    _reading: ChatReading

    @property
    def answer(self) -> Answer:
        """All pieces as one answer. Raises StreamFailed before the stream's end."""
        return self._reading.answer()

    @property
    def receipt(self) -> Receipt:
        """It comes last. Raises StreamFailed before the stream's end."""
        return self.answer.receipt

    @property
    def chunks(self) -> list[Chunk]:
        """Every event so far as the server sent it, for what is not text."""
        return self._reading.chunks

    @property
    def request_id(self) -> str | None:
        """By which the server's log knows the request."""
        return self._reading.request_id


class ChatStream(_Told, Stream[str]):
    """An answer's text in pieces."""

    def __init__(self, response: httpx.Response, reading: ChatReading) -> None:
        super().__init__(response, reading)
        self._reading: ChatReading = reading


class AsyncChatStream(_Told, AsyncStream[str]):
    """An answer's text in pieces."""

    def __init__(self, response: httpx.Response, reading: ChatReading) -> None:
        super().__init__(response, reading)
        self._reading: ChatReading = reading
