"""An engine that dies: said clearly, and never by an answer. These tests come last: what they kill is shared."""

import httpx
import orjson
import pytest

from tests.engines.suite.served import Served


@pytest.fixture(scope="session")
def stream_cut_off(served: Served) -> bytes:
    """The rest of a stream whose engine was killed after its first bytes."""
    body = served.long_body(stream=True)
    with served.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.iter_raw()
        next(chunks)
        served.kill()
        return b"".join(chunks)


def test_a_stream_cut_off_ends_with_an_error_and_no_receipt(stream_cut_off: bytes) -> None:
    *_, error, done = [line for line in stream_cut_off.splitlines() if line]
    assert set(orjson.loads(error.removeprefix(b"data: "))["error"]) == {"message", "type", "param", "code"}
    assert done == b"data: [DONE]"
    assert b'"control"' not in stream_cut_off


@pytest.mark.usefixtures("stream_cut_off")
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_to_a_dead_engine_is_503(served: Served, stream: bool) -> None:
    status, error = served.refusal(served.body(stream=stream))
    assert status == 503
    assert error["type"] == error["code"] == "engine_unavailable"
    assert error["message"]


@pytest.mark.usefixtures("stream_cut_off")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("early_stop", [False, True])
def test_a_reranked_request_to_a_dead_engine_is_503(served: Served, stream: bool, early_stop: bool) -> None:
    control = {"mode": "rerank", "early_stop": early_stop}
    status, error = served.refusal(served.body(stream=stream, temperature=1, control=control))
    assert status == 503
    assert error["type"] == error["code"] == "engine_unavailable"
    assert error["message"]


@pytest.mark.usefixtures("stream_cut_off")
def test_a_server_without_its_engine_is_not_ready_and_says_why(served: Served) -> None:
    with served.http() as http:
        response = http.get("/ready")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_unavailable"


@pytest.mark.usefixtures("stream_cut_off")
def test_a_server_without_its_engine_still_lives(served: Served) -> None:
    health = httpx.get(f"{served.url}/health")
    assert health.status_code == 200
    assert health.json() == {"status": "alive"}
