"""docker/ready.py: 0 for a server that is ready, and 1 with a word for one that is not, or is not there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.deploy.files import ROOT
from tools.processes import free_port


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server whose `/ready` answers so; everything else is 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def checked(port: int, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(ROOT / "docker" / "ready.py")]
    environment = {**os.environ, "RHEOSTAT_PORT": str(port), **more}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_it_ends_as_the_server_answers(status: int, code: int) -> None:
    with answering(status) as port:
        ended = checked(port)
    assert (ended.returncode, bool(ended.stderr)) == (code, bool(code))
    assert "Traceback" not in ended.stderr


def test_it_asks_no_proxy() -> None:
    with answering(200) as port:
        assert checked(port, HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9").returncode == 0


def test_a_server_that_is_not_there_is_not_ready() -> None:
    ended = checked(free_port())
    assert ended.returncode == 1
    assert "refused" in ended.stderr
