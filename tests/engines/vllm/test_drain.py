"""A real vLLM that is told to stop: what runs and what waits is answered, and what comes is sent elsewhere."""

import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.engines.vllm.server import SMALL, VllmServer, running
from tests.waiting import until
from tools.processes import free_port

CHAT: Final[dict[str, Any]] = {
    "model": "tiny", "messages": [{"role": "user", "content": "hello"}], "ignore_eos": True, "control": {"mode": "off"},
}  # fmt: skip
LONG: Final = {**CHAT, "stream": True, "n": 4, "max_tokens": 400}
WHOLE: Final = {**CHAT, "max_tokens": 200}
WITHIN_SECONDS: Final = 60
ENDED_WITHIN_SECONDS: Final = 150
"""vLLM may take all of its own time to end its workers."""


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path, tiny_model: Path) -> Generator[VllmServer]:
    """One that answers one request at a time; the others wait in our queue."""
    port, log = free_port(), tmp_path / "server.log"
    environment = {"RHEOSTAT_DRAIN_SECONDS": "60", "RHEOSTAT_MAX_RUNNING": "1", "RHEOSTAT_RESERVED_RUNNING": "0"}
    command: list[str | Path] = [
        "rheostat", "serve", tiny_model, "--engine", "vllm", "--served-model-name", "tiny", "--port", str(port), "--",
        *SMALL, *request.param,
    ]  # fmt: skip
    with running(command, port=port, log=log, path="/ready", environment=environment) as server:
        yield server


class Asked(threading.Thread):
    """A request under way; `lines` are those of its stream so far, or of its whole answer."""

    def __init__(self, server: VllmServer, body: dict[str, Any]) -> None:
        super().__init__()
        self._url, self._body = f"{server.url}/v1/chat/completions", body
        self.status, self.lines = 0, list[str]()
        self.start()

    def run(self) -> None:
        with httpx.stream("POST", self._url, json=self._body, timeout=WITHIN_SECONDS) as response:
            self.status = response.status_code
            self.lines.extend(response.iter_lines())

    def ended(self) -> str:
        self.join(WITHIN_SECONDS)
        assert not self.is_alive()
        return "\n".join(self.lines)


def held(server: VllmServer) -> float:
    """How many requests the server has let in."""
    return server.number("rheostat_queue_running") + server.number("rheostat_queue_waiting")


@pytest.mark.parametrize(
    "server",
    [
        pytest.param([], id="one API server"),
        pytest.param(["--api-server-count", "2"], id="two API servers", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_what_runs_and_waits_is_answered_and_what_comes_is_sent_elsewhere(server: VllmServer) -> None:
    runs = Asked(server, LONG)
    until(lambda: len(runs.lines) > 8)
    waits = [Asked(server, WHOLE) for _ in range(4)]
    until(lambda: held(server) == 1 + len(waits))
    server.process.send_signal(signal.SIGTERM)
    with server.client() as http:
        until(lambda: http.get("/ready").status_code == 503)
        refused = [http.get("/ready"), http.post("/v1/chat/completions", json=CHAT)]
        assert [(told.status_code, told.json()["error"]["code"]) for told in refused] == [(503, "draining")] * 2
        assert http.get("/health").status_code == 200
    assert runs.ended().count('"finish_reason":"length"') == 4
    assert "data: [DONE]" in runs.lines
    assert '"control":' in "".join(runs.lines)
    for asked in waits:
        assert '"completion_tokens":200' in asked.ended()
        assert asked.status == 200
    assert server.process.wait(ENDED_WITHIN_SECONDS) == 0


@pytest.mark.slow
@pytest.mark.parametrize("server", [[]], indirect=True)
def test_no_answer_is_empty_where_every_process_is_told_at_once(server: VllmServer) -> None:
    """As by systemd and by a terminal: vLLM's workers end at once, and its engine with them."""
    runs = Asked(server, LONG)
    until(lambda: len(runs.lines) > 8)
    waits = [Asked(server, WHOLE) for _ in range(4)]
    until(lambda: held(server) == 1 + len(waits))
    os.killpg(server.process.pid, signal.SIGTERM)
    streamed = runs.ended()
    assert streamed.count('"finish_reason":"length"') == 4 or '"code":"engine_unavailable"' in streamed
    assert ('"control":' in streamed) == ('"error":' not in streamed)
    for asked in waits:
        told = asked.ended()
        assert '"completion_tokens":200' in told if asked.status == 200 else asked.status == 503
    server.process.wait(ENDED_WITHIN_SECONDS)
