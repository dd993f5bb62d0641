"""vLLM's server with Rheostat in it serves our routes and a short list of vLLM's, and nothing else."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest

from rheostat_server.engines.vllm.gate import OPEN_OF_VLLM
from tests.engines.vllm.server import VllmServer

OURS: Final = {
    "/v1/chat/completions",
    "/v1/models",
    "/v1/control",
    "/v1/control/plan",
    "/v1/control/score",
    "/v1/control/sweep",
    "/v1/admin/policy/reload",
    "/health",
    "/ready",
}
PAGE: Final = {"/", "/playground/app.js"}
# Routes that vLLM adds for other kinds of model, for its other vendors' formats, or by other spellings.
ELSEWHERE: Final = (
    "/v1/embeddings", "/pooling", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank",
    "/v2/chat", "/cohere/v2/chat", "/v2/embed", "/start_profile", "/stop_profile", "/static", "/static/x",
    "/v1/chat/completions/", "//v1/completions", "/v1//completions", "/V1/completions", "/%76%31/completions",
    "/v1/completions%2F", "/metrics/", "/metricsx", "/docs/", "/v1/./completions", "/health/../v1/completions",
    "/playground", "/playground/", "/playground/index.html", "/playground/../v1/completions",
)  # fmt: skip
SHAPE: Final = {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def bare_routes() -> list[tuple[str, list[str]]]:
    """Path and methods of every route that vLLM's own server has, developer mode and all."""
    script = Path(__file__).with_name("bare_routes.py")
    output = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True, timeout=240).stdout
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    return [(re.sub(r"{[^}]*}", "x", path), methods) for path, methods in lines]


def assert_closed(answer: httpx.Response) -> None:
    assert answer.status_code == 404, f"{answer.request.method} {answer.request.url}: {answer.status_code}"
    error = answer.json()["error"]
    assert set(error) == SHAPE
    assert error["type"] == "invalid_request_error"
    assert error["code"] == "not_found"


def test_vllm_has_the_routes_that_this_test_is_about(bare_routes: list[tuple[str, list[str]]]) -> None:
    paths = {path for path, _ in bare_routes}
    assert {"/v1/completions", "/tokenize", "/invocations", "/collective_rpc", "/inference/v1/generate"} <= paths
    assert len(paths) > 50


def test_every_route_of_vllm_that_is_not_on_the_list_answers_404(
    rheostat_in_vllm: VllmServer, bare_routes: list[tuple[str, list[str]]]
) -> None:
    closed = [
        (path, method)
        for path, methods in bare_routes
        for method in methods
        if path not in OURS | OPEN_OF_VLLM and method != "WEBSOCKET"
    ]
    with rheostat_in_vllm.client() as client:
        for path, method in closed:
            assert_closed(client.request(method, path, json={} if method == "POST" else None))


@pytest.mark.parametrize("path", ELSEWHERE)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_paths_and_spellings_answer_404(rheostat_in_vllm: VllmServer, method: str, path: str) -> None:
    host, port = rheostat_in_vllm.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        assert connection.recv(64).split()[1] == b"404"


@pytest.mark.parametrize("path", sorted(OURS | OPEN_OF_VLLM | PAGE))
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_open_paths_are_closed_to_other_methods(rheostat_in_vllm: VllmServer, method: str, path: str) -> None:
    with rheostat_in_vllm.client() as client:
        assert client.request(method, path).status_code in (404, 405)


@pytest.mark.parametrize("path", sorted(PAGE))
def test_the_playground_is_open_with_its_policy(rheostat_in_vllm: VllmServer, path: str) -> None:
    with rheostat_in_vllm.client() as client:
        response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("path", sorted(OPEN_OF_VLLM))
def test_what_is_open_of_vllm_answers(rheostat_in_vllm: VllmServer, path: str) -> None:
    with rheostat_in_vllm.client() as client:
        assert client.get(path).status_code == 200


def test_the_document_of_the_api_lists_open_routes_alone(rheostat_in_vllm: VllmServer) -> None:
    with rheostat_in_vllm.client() as client:
        listed = set(client.get("/openapi.json").json()["paths"])
    assert listed <= OURS | OPEN_OF_VLLM | {"/v1/models/{name}"}
    assert listed >= OURS


def test_the_page_lists_what_is_open() -> None:
    page = (Path(__file__).parents[3] / "docs" / "vllm.md").read_text()
    assert [path for path in OURS | OPEN_OF_VLLM if f"`{path}`" not in page] == []


def test_a_websocket_is_not_opened(rheostat_in_vllm: VllmServer) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    with rheostat_in_vllm.client() as client:
        assert client.get("/v1/realtime", headers=headers).status_code in (403, 404)


def test_metrics_hold_ours_and_those_of_vllm(rheostat_in_vllm: VllmServer) -> None:
    with rheostat_in_vllm.client() as client:
        text = client.get("/metrics").text
    assert "vllm:num_requests_running" in text
    assert "rheostat_requests" in text
