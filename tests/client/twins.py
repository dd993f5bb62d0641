"""Client and AsyncClient behind one way to use them, so that a test holds them both."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from rheostat import AsyncClient, Client

Handler = Callable[[httpx.Request], httpx.Response]
URL: Final = "http://server"
COMPLETION: Final[Mapping[str, Any]] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "demo",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    "control": {"requested": {"safety": 1}, "mode": "off", "timing_ms": {"total": 2.5}},
}


@dataclass
class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in parts, after which the connection may break; tells whether it was closed."""

    parts: Sequence[bytes]
    breaks: httpx.RequestError | None = None
    closed: bool = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        if self.breaks:
            raise self.breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Twin:
    """One of the two; `settings` are arguments of its constructor."""

    settings: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    async def ask(self, handler: Handler, method: str, *arguments: Any, **named: Any) -> Any:
        """What a method answers on a server that is this handler."""

    @abstractmethod
    async def read(self, handler: Handler, method: str, *arguments: Any, most: int = 1000, **named: Any) -> Any:
        """The values of a stream, `most` of them, and the stream after it was left."""


class Sync(Twin):
    async def ask(self, handler: Handler, method: str, *arguments: Any, **named: Any) -> Any:
        with Client(URL, transport=httpx.MockTransport(handler), **self.settings) as client:
            return getattr(client, method)(*arguments, **named)

    async def read(self, handler: Handler, method: str, *arguments: Any, most: int = 1000, **named: Any) -> Any:
        with Client(URL, transport=httpx.MockTransport(handler), **self.settings) as client:
            found: list[Any] = []
            with getattr(client, method)(*arguments, **named) as stream:
                for value in stream:
                    found.append(value)
                    if len(found) == most:
                        break
        return found, stream


class Async(Twin):
    async def ask(self, handler: Handler, method: str, *arguments: Any, **named: Any) -> Any:
        async with AsyncClient(URL, transport=httpx.MockTransport(handler), **self.settings) as client:
            return await getattr(client, method)(*arguments, **named)

    async def read(self, handler: Handler, method: str, *arguments: Any, most: int = 1000, **named: Any) -> Any:
        async with AsyncClient(URL, transport=httpx.MockTransport(handler), **self.settings) as client:
            found: list[Any] = []
            async with getattr(client, method)(*arguments, **named) as stream:
                async for value in stream:
                    found.append(value)
                    if len(found) == most:
                        break
        return found, stream
