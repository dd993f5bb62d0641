"""An upstream that is killed in the middle of a stream, and started anew: all of it real processes."""

from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from tools.processes import Process, free_port, started, wait_until_ready

CHAT: Final[dict[str, Any]] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "How do I repot a fern?"}],
    "control": {"mode": "prompt", "safety": 0.9},
}
ENDLESS: Final[dict[str, Any]] = {**CHAT, "stream": True, "max_tokens": 800, "ignore_eos": True}


def test_a_stream_ends_with_an_error_and_once_the_upstream_is_back_the_next_request_is_answered(tmp_path: Path) -> None:
    upstream, gateway = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    log = tmp_path / "gateway.log"
    with _upstream(upstream, tmp_path) as engine:
        _wait(engine, upstream, tmp_path)
        command = ["rheostat", "serve", "--engine", "remote", "--upstream", upstream, "--port", gateway.split(":")[-1]]
        with started(command, log=log) as process, httpx.Client(base_url=gateway, timeout=60) as http:
            wait_until_ready(process, f"{gateway}/ready", log=log)
            *_, error, done = _stream_cut_off(http, engine)
            assert orjson.loads(error.removeprefix(b"data: "))["error"]["code"] == "engine_failed"
            assert done == b"data: [DONE]"
            refused = http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 4})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
            with _upstream(upstream, tmp_path) as another:
                _wait(another, upstream, tmp_path)
                answer = http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 4})
                assert answer.status_code == 200, answer.text
                assert answer.json()["control"]["effective"]["safety"] == 0.9


def _upstream(url: str, folder: Path) -> Any:
    return started(["rheostat", "serve", "--port", url.split(":")[-1]], log=folder / "upstream.log")


def _wait(process: Process, url: str, folder: Path) -> None:
    wait_until_ready(process, f"{url}/ready", log=folder / "upstream.log")


def _stream_cut_off(http: httpx.Client, engine: Process) -> list[bytes]:
    """The lines of a stream whose engine was killed after its first bytes."""
    with http.stream("POST", "/v1/chat/completions", json=ENDLESS) as response:
        parts = response.iter_raw()
        first = next(parts)
        engine.kill()
        engine.wait()
        return [line for line in (first + b"".join(parts)).splitlines() if line]
