"""One trace from the caller, through the pipeline, into a real vLLM in the same process and in its engine's."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.engines.vllm.server import SMALL, VllmServer, running
from tests.engines.vllm.test_in_vllm import ask, body
from tests.server.collector import Collector, collecting
from tests.server.test_tracing import PARENT, PATH, TRACE, TRACEPARENT, WRITTEN
from tools.processes import free_port

VLLMS = "llm_request"


@pytest.fixture(scope="module")
def collector() -> Generator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def traced(tiny_model: Path, tiny_scorers: Path, collector: Collector, tmp_path: Path) -> Generator[VllmServer]:
    port = free_port()
    means = [f"--scorers={tiny_scorers}", "--port", str(port), "--served-model-name", "tiny"]
    flags = [*SMALL, "--otlp-traces-endpoint", f"{collector.url}/v1/traces"]
    with running(
        ["rheostat", "serve", tiny_model, "--engine", "vllm", *means, "--", *flags],
        port=port,
        log=tmp_path / "rheostat.log",
        path="/ready",
        environment={"RHEOSTAT_TRACING": "true", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
    ) as server:
        yield server


def test_a_trace_goes_on_in_vllm(traced: VllmServer, collector: Collector) -> None:
    whole = body(f"How is {WRITTEN} kept?", control={"mode": "prompt"})
    raced = {**whole, "stream": True, "control": {"mode": "prompt+rerank", "candidates": 3}}
    for asked in (whole, raced):
        assert ask(traced, asked, traceparent=TRACEPARENT).status_code == 200
    traced.process.terminate()
    traced.process.wait(timeout=60)
    spans = [span for span in collector.spans if span.trace == TRACE]
    by_id = {span.span: span.name for span in spans}
    assert [span.parent for span in spans if span.name == f"POST {PATH}"] == [PARENT] * 2
    assert [by_id[span.parent] for span in spans if span.name == "engine"] == [f"POST {PATH}"]
    inside = sorted(by_id[span.parent] for span in spans if span.name == VLLMS)
    assert inside[0] == "engine"
    assert set(inside[1:]) == {"race"}
    assert WRITTEN.encode() not in b"".join(collector.raw)
