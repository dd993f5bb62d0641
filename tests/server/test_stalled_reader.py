"""A caller that asks for a stream and does not read it: it holds its place in the engine for a while, and no longer."""

import json
import socket
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from rheostat_server.engines import EngineRequest
from rheostat_server.runtime import Runtime, admission_from
from rheostat_server.settings import Settings
from rheostat_server.sse import event
from tests.engines.app_server import runtime_server
from tests.server.recording import RecordingEngine

PIECE = "x" * 65536


@dataclass
class Endless(RecordingEngine):
    """Writes without end, more than any buffer holds."""

    running: int = 0

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        self.running += 1
        try:
            while True:
                yield event({"choices": [{"index": 0, "delta": {"content": PIECE}}]})
        finally:
            self.running -= 1


def test_a_caller_that_does_not_read_is_left(runtime: Runtime, tmp_path: Path) -> None:
    settings = Settings(reader_seconds=0.5, audit=tmp_path / "audit.jsonl")
    engine = Endless()
    served = replace(runtime, engine=engine, settings=settings, admission=admission_from(settings))
    body = orjson.dumps({"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "stream": True})
    with runtime_server(served) as server, socket.create_connection(address_of(server.url)) as caller:
        head = ["POST /v1/chat/completions HTTP/1.1", "Host: a", "Content-Type: application/json"]
        caller.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        assert caller.recv(15) == b"HTTP/1.1 200 OK"
        assert engine.running == 1
        until = time.monotonic() + 30
        while engine.running:
            assert time.monotonic() < until
            time.sleep(0.05)
    [record] = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert record["outcome"] == "cancelled"


def address_of(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)
