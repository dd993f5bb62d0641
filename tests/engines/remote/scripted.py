"""An upstream server that answers with bytes as they are written in a test, and keeps what it was asked."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

STREAM_END: Final = b"0\r\n\r\n"
MODELS: Final = {"data": [{"id": "base", "parent": None}, {"id": "a@1", "parent": "base"}]}


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answer = bytes | Callable[[Asked], bytes]


@dataclass(slots=True)
class Scripted:
    """`answers` are raw responses by path, or what makes one of a request.

    After a stream that has ended, the connection takes another request; after anything else it is closed, or held open
    if `stays` is set.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    stays: bool = False
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    connections: set["asyncio.Task[None]"] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = STREAM_END
        while answer.endswith(STREAM_END) and (asked := await _read(reader)):
            self.asked.append(asked)
            written = self.answers.get(asked.path, http(404, b"Not Found", "text/plain"))
            answer = written if isinstance(written, bytes) else written(asked)
            writer.write(answer)
            await writer.drain()
        if self.stays:
            await reader.read()
            self.hung_up.set()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def scripted(answers: Mapping[str, Answer], *, stays: bool = False) -> AsyncGenerator[Scripted, None]:
    """A server on a free port, which lists `MODELS` unless told otherwise."""
    script = Scripted({"/health": http(200, b""), "/v1/models": json(MODELS), **answers}, stays=stays)
    async with await asyncio.start_server(script.accept, "127.0.0.1", 0) as server:
        script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield script
        await asyncio.gather(*script.connections)


def http(status: int, content: bytes, content_type: str = "application/json", **headers: str) -> bytes:
    lines = {"content-type": content_type, "content-length": str(len(content)), "connection": "close", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + content


def json(content: Any, status: int = 200, **headers: str) -> bytes:
    return http(status, orjson.dumps(content), **headers)


def error(status: int, message: str, **parts: Any) -> bytes:
    """OpenAI's error as a whole response."""
    return json(
        {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **parts}}, status
    )


def events(*chunks: bytes, ended: bool = True) -> bytes:
    """A chunked stream of server-sent events; `ended` says whether HTTP's own end is sent."""
    head = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + framed + (STREAM_END if ended else b"")


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    """None where the client has hung up instead."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
