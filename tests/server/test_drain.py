"""A real server that is told to stop: streams come to their end, new requests are sent elsewhere, then it is gone."""

import json
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.waiting import until
from tools.processes import BIN, free_port, started, wait_until_ready

LONG = {"model": "demo", "messages": [{"role": "user", "content": "How do I repot a fern?"}], "max_tokens": 150}


def test_streams_end_and_new_requests_get_503(tmp_path: Path) -> None:
    log, url = tmp_path / "server.log", f"http://127.0.0.1:{(port := free_port())}"
    seen: list[list[str]] = [[] for _ in range(3)]
    with started(["rheostat", "serve", "--port", str(port)], log=log) as process:
        wait_until_ready(process, f"{url}/ready", log=log)

        def stream(lines: list[str]) -> None:
            body = {**LONG, "stream": True, "n": 4, "max_tokens": 300, "ignore_eos": True, "temperature": 1.0}
            with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
                lines.extend(response.iter_lines())

        running = [threading.Thread(target=stream, args=(lines,)) for lines in seen]
        for thread in running:
            thread.start()
        until(lambda: all(seen))
        process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=url, timeout=60) as http:
            answer = _first_refusal(http)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
            assert http.get("/ready").status_code == 503
            assert http.get("/health").status_code == 200
        for thread in running:
            thread.join()
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert [lines.count("data: [DONE]") for lines in seen] == [1, 1, 1]
    assert "error" not in "".join(line for lines in seen for line in lines)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def _first_refusal(http: httpx.Client) -> httpx.Response:
    """The signal may take a moment to be handled."""
    for _ in range(100):
        answer = http.post("/v1/chat/completions", json={**LONG, "max_tokens": 1})
        if answer.status_code != 200:
            return answer
    raise AssertionError("requests were let in all the while")


def test_a_server_that_leaves_is_not_ready_and_still_answers(tmp_path: Path) -> None:
    log, url = tmp_path / "server.log", f"http://127.0.0.1:{(port := free_port())}"
    environment = {"RHEOSTAT_LEAVE_SECONDS": "3"}
    with started(["rheostat", "serve", "--port", str(port)], log=log, environment=environment) as process:
        wait_until_ready(process, f"{url}/ready", log=log)
        process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=url, timeout=60) as http:
            until(lambda: http.get("/ready").status_code == 503)
            assert http.post("/v1/chat/completions", json={**LONG, "max_tokens": 1}).status_code == 200
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_standard_output_is_the_audit_logs_alone(tmp_path: Path) -> None:
    out, log, url = tmp_path / "out", tmp_path / "server.log", f"http://127.0.0.1:{(port := free_port())}"
    command = f"exec {BIN / 'rheostat'} serve --port {port} >{out}"
    with started(["/bin/sh", "-c", command], log=log, environment={"RHEOSTAT_AUDIT": "/dev/stdout"}) as process:
        wait_until_ready(process, f"{url}/ready", log=log)
        httpx.post(f"{url}/v1/chat/completions", json={**LONG, "max_tokens": 1}, timeout=60)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert [json.loads(line)["status"] for line in out.read_bytes().splitlines()] == [200]
    assert "POST /v1/chat/completions" in log.read_text()


def test_what_does_not_end_in_time_is_cut_off(tmp_path: Path) -> None:
    log, url = tmp_path / "server.log", f"http://127.0.0.1:{(port := free_port())}"
    environment = {"RHEOSTAT_DRAIN_SECONDS": "0.2"}
    with started(["rheostat", "serve", "--port", str(port)], log=log, environment=environment) as process:
        wait_until_ready(process, f"{url}/ready", log=log)
        body = {**LONG, "stream": True, "n": 16, "max_tokens": 500, "temperature": 1.0, "ignore_eos": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            try:
                rest = list(lines)
            except httpx.RemoteProtocolError:
                rest = []
        assert "data: [DONE]" not in rest or "error" in "".join(rest)
        process.wait(30)
        assert time.monotonic() - began < 15
    assert "requests are cut off" in log.read_text()
