"""Callers, records and the end of a server inside a real vLLM."""

import json
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines.vllm.server import SMALL, VllmServer, running
from tests.server.callers.files import ADMIN_KEY, KIDS_KEY, POLICY, bearer, write
from tools.processes import free_port

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
LIMITED = POLICY.replace("modes: [adapter, rerank]", "modes: [prompt]")


@pytest.fixture
def server(tmp_path: Path, tiny_model: Path) -> Generator[VllmServer]:
    port = free_port()
    environment = {"RHEOSTAT_AUDIT": str(tmp_path / "audit.jsonl"), "RHEOSTAT_DRAIN_SECONDS": "60"}
    command: list[str | Path] = [
        "rheostat", "serve", tiny_model, "--engine", "vllm", "--policy", write(tmp_path, LIMITED),
        "--served-model-name", "tiny", "--port", str(port), "--", *SMALL,
    ]  # fmt: skip
    log = tmp_path / "server.log"
    with running(command, port=port, log=log, path="/ready", environment=environment) as server:
        yield server


def least_safety(http: httpx.Client) -> float:
    """What the caller kids may have, as the server says."""
    return float(http.get("/v1/control", headers=bearer(KIDS_KEY)).json()["dials"]["safety"]["min"])


def test_callers_are_held_to_their_envelopes_and_streams_end_when_the_server_is_told_to_stop(
    server: VllmServer, tmp_path: Path
) -> None:
    with server.client() as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 401
        assert http.get("/v1/models").status_code == 401
        control = {"safety": 0.1}
        told = http.post("/v1/chat/completions", json={**CHAT, "control": control}, headers=bearer(KIDS_KEY)).json()
        assert told["control"]["effective"]["safety"] == 0.8
        assert told["control"]["clamped"] == ["safety"]
        (tmp_path / "policy.yaml").write_text(LIMITED.replace("min: 0.8", "min: 0.9"))
        assert http.post("/v1/admin/policy/reload", headers=bearer(ADMIN_KEY)).status_code == 200
        assert least_safety(http) == 0.9
        (tmp_path / "policy.yaml").write_text(LIMITED.replace("min: 0.8", "min: 0.85"))
        server.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 20
        while least_safety(http) != 0.85:
            assert time.monotonic() < until
            time.sleep(0.05)
        told = http.post("/v1/chat/completions", json={**CHAT, "control": control}, headers=bearer(KIDS_KEY)).json()
        assert told["control"]["effective"]["safety"] == 0.85

    seen: list[str] = []

    def stream() -> None:
        body = {**CHAT, "stream": True, "max_tokens": 200, "ignore_eos": True, "n": 4}
        url = f"{server.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=bearer(KIDS_KEY), timeout=120) as response:
            seen.extend(response.iter_lines())

    thread = threading.Thread(target=stream)
    thread.start()
    while len(seen) < 8:
        threading.Event().wait(0.01)
    server.process.send_signal(signal.SIGTERM)
    thread.join()
    assert server.process.wait(60) == 0
    assert "data: [DONE]" in seen
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records if record["route"] != "/v1/control"] == [
        401,
        401,
        200,
        200,
        200,
        200,
    ]
    assert records[-1]["stream"] is True
    assert records[-1]["usage"]["completion_tokens"] == 800
    assert KIDS_KEY not in server.log.read_text()
