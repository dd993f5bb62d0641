"""A server process that sends its traces to a real receiver, configured by OpenTelemetry's own variables alone."""

import json
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.server.collector import Collector, Received, collecting
from tests.server.test_tracing import CHAT, PARENT, PATH, TRACE, TRACEPARENT, WRITTEN
from tools.processes import free_port, started, wait_until_ready


def serve_and_ask(collector: Collector, log: Path, environment: Mapping[str, str]) -> httpx.Response:
    """A streamed answer of the demo; when this returns, the server has ended."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    own = {"RHEOSTAT_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **environment}
    with started(["rheostat", "serve", "--port", str(port)], log=log, environment=own) as process:
        wait_until_ready(process, f"{url}/ready", log=log)
        asked = {**CHAT, "stream": True, "control": {"safety": 0.5, "helpfulness": 0.5}}
        headers = {"traceparent": TRACEPARENT, "tracestate": f"={WRITTEN}"}
        return httpx.post(f"{url}{PATH}", json=asked, headers=headers, timeout=60)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def test_a_server_that_ends_has_sent_its_traces(log: Path) -> None:
    with collecting() as collector:
        response = serve_and_ask(collector, log, {"OTEL_SERVICE_NAME": "dials", "OTEL_BSP_SCHEDULE_DELAY": "60000"})
        assert response.status_code == 200
    spans: dict[str, Received] = {span.name: span for span in collector.spans}
    assert set(spans) == {f"POST {PATH}", "plan", "admission", "engine"}
    server = spans.pop(f"POST {PATH}")
    assert (server.service, server.trace, server.parent) == ("dials", TRACE, PARENT)
    assert {(span.trace, span.parent) for span in spans.values()} == {(TRACE, server.span)}
    assert (server.attributes["rheostat.mode"], server.attributes["rheostat.safety"]) == ("adapter", 0.5)
    assert WRITTEN.encode() not in b"".join(collector.raw)


def test_a_sampler_of_opentelemetrys_is_obeyed(log: Path) -> None:
    with collecting() as collector:
        assert serve_and_ask(collector, log, {"OTEL_TRACES_SAMPLER": "always_off"}).status_code == 200
    assert collector.spans == []


def test_a_receiver_that_is_gone_costs_no_answer(log: Path) -> None:
    gone = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with collecting() as collector:
        assert serve_and_ask(collector, log, gone).status_code == 200
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == ["rheostat serves", "draining"]
    assert WRITTEN not in log.read_text()
