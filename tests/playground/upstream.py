"""An upstream server whose model says what a test has it say, over HTTP, for the remote engine."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

MODEL: Final = "scripted"


@dataclass(slots=True)
class Script:
    """What the model says, in pieces. With `stays` a stream does not end after them until it is let go.

    The first `fails` requests fail. `asked` are the prompts of all.
    """

    url: str
    pieces: tuple[str, ...] = ("Hello.",)
    stays: bool = False
    fails: int = 0
    asked: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    def says(self, *pieces: str, stays: bool = False, fails: int = 0) -> None:
        self.pieces, self.stays, self.fails, self.asked = pieces, stays, fails, []
        self.let_go.clear()

    def takes(self, prompt: str) -> bool:
        """Whether a request is answered; the order in which several come does not matter to a test."""
        self.asked.append(prompt)
        return len(self.asked) > self.fails


@contextmanager
def scripted_upstream() -> Generator[Script]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.script = Script(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.script
    finally:
        server.script.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    script: Script


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": MODEL, "object": "model", "parent": None}]}
        self._answer(models if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.server.script.takes(body["messages"][-1]["content"]):
            self._answer({"error": {"message": "as scripted", "type": "server_error"}}, status=500)
            return
        if not body.get("stream"):
            self._answer(_completion("".join(self.server.script.pieces)))
            return
        with suppress(ConnectionError):
            self._stream()

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.server.script.pieces:
            self._chunk(f"data: {json.dumps(_event({'content': piece}))}\n\n")
        if self.server.script.stays:
            self.server.script.let_go.wait(60)
        self._chunk(f"data: {json.dumps(_event({}, 'stop'))}\n\ndata: [DONE]\n\n")
        self._chunk("")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _answer(self, content: Any, *, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def _event(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": [choice]}


def _completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
