"""HAProxy with the file of compose.scale.yaml, before real servers of ours: what docs/deploy.md says of it is so."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rheostat_server.adapters import AdapterStore
from rheostat_server.drain import Drain
from rheostat_server.engines.fake import FakeEngine
from rheostat_server.engines.fake.orders import Orders
from rheostat_server.serve import make_runtime
from rheostat_server.settings import Settings
from tests.deploy.files import ROOT, environment, services
from tests.engines.app_server import runtime_server
from tools.processes import free_port, started, wait_until_ready

HAPROXY = shutil.which("haproxy")
FILE = ROOT / "docker" / "scale" / "haproxy.cfg"
BODY = {"model": "fake", "messages": [{"role": "user", "content": "How do I repot a fern?"}]}
pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not on the PATH; Debian's package has it")


@dataclass(frozen=True, slots=True)
class Scale:
    """The URLs that callers, gateways and Prometheus have of one HAProxy, and the engines of the servers behind it.

    `drains` are the servers' own, gateways first.
    """

    callers: str
    upstream: str
    metrics: str
    gateways: list[FakeEngine]
    vllm: list[FakeEngine]
    drains: list[Drain]

    def ask(self) -> httpx.Response:
        return httpx.post(f"{self.callers}/v1/chat/completions", json=BODY)


@pytest.fixture
def scale(tmp_path: Path) -> Iterator[Scale]:
    engines = [FakeEngine() for _ in range(4)]
    ports = [free_port() for _ in range(3)]
    with ExitStack() as stack:
        runtimes = [make_runtime(engine, AdapterStore(), Settings(), None) for engine in engines]
        servers = [stack.enter_context(runtime_server(runtime)).url for runtime in runtimes]
        drains = [runtime.admission.drain for runtime in runtimes]
        config = tmp_path / "haproxy.cfg"
        config.write_text(on_this_machine(servers, ports))
        log = tmp_path / "haproxy.log"
        process = stack.enter_context(started([str(HAPROXY), "-db", "-f", config], log=log))
        callers, upstream, metrics = (f"http://127.0.0.1:{port}" for port in ports)
        for url in (f"{callers}/ready", f"{upstream}/health"):
            wait_until_ready(process, url, log=log)
        yield Scale(callers, upstream, metrics, engines[:2], engines[2:], drains)


def on_this_machine(servers: list[str], ports: list[int]) -> str:
    """The file with addresses of this machine in the place of names that only Docker knows."""
    text = re.sub(r"resolvers docker\n(    .*\n)+", "", FILE.read_text())
    for bound, port in zip((8000, 8001, 8404), ports, strict=True):
        text = text.replace(f"    bind :{bound}\n", f"    bind 127.0.0.1:{port}\n")
    gateways = "\n".join(f"    server gateway-{i} {url[7:]}" for i, url in enumerate(servers[:2]))
    text = re.sub(r"    server-template gateway .*", gateways, text)
    for i, url in enumerate(servers[2:]):
        text = re.sub(rf"    server vllm-{i} .*", f"    server vllm-{i} {url[7:]}", text)
    assert "docker" not in text
    return text


def within(seconds: float, held: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not held() and time.monotonic() < deadline:
        time.sleep(0.05)
    return held()


def test_callers_are_shared_out_and_answered_whole(scale: Scale) -> None:
    assert {scale.ask().status_code for _ in range(8)} == {200}
    assert [bool(engine.asked) for engine in scale.gateways] == [True, True]
    assert [engine.asked for engine in scale.vllm] == [[], []]


def test_gateways_reach_either_vllm_server(scale: Scale) -> None:
    asked = [httpx.post(f"{scale.upstream}/v1/chat/completions", json=BODY) for _ in range(8)]
    assert {answer.status_code for answer in asked} == {200}
    assert [bool(engine.asked) for engine in scale.vllm] == [True, True]


def test_a_gateway_that_is_not_ready_is_passed_over(scale: Scale) -> None:
    first, second = scale.gateways
    first.dead = True
    assert within(20, lambda: {scale.ask().status_code for _ in range(4)} == {200})
    before = len(second.asked)
    assert {scale.ask().status_code for _ in range(8)} == {200}
    assert len(second.asked) == before + 8


def test_a_gateway_that_is_told_to_end_loses_no_request(scale: Scale) -> None:
    gateway = environment(services(ROOT / "compose.scale.yaml")["gateway"])
    began, statuses = time.monotonic(), list[int]()

    def ask_until_it_has_ended() -> None:
        while time.monotonic() - began < float(gateway["RHEOSTAT_LEAVE_SECONDS"]) + 1:
            statuses.append(scale.ask().status_code)

    with ThreadPoolExecutor(6) as callers:
        asked = [callers.submit(ask_until_it_has_ended) for _ in range(6)]
        scale.drains[0].leaving = True
        time.sleep(float(gateway["RHEOSTAT_LEAVE_SECONDS"]))
        scale.drains[0].begun = True
        for each in asked:
            each.result()
    assert {*statuses} == {200}
    assert len(statuses) > 100


def test_a_stream_is_passed_on_event_by_event(scale: Scale) -> None:
    for engine in scale.gateways:
        engine.orders = Orders(seconds_per_token=0.1)
    began = time.monotonic()
    with httpx.stream("POST", f"{scale.callers}/v1/chat/completions", json={**BODY, "stream": True}) as response:
        times = [time.monotonic() - began for line in response.iter_lines() if line]
    assert times[-1] > 0.5
    assert times[0] < times[-1] / 2


def test_metrics_are_for_prometheus_alone(scale: Scale) -> None:
    for path in ("metrics", "%6detrics", "%6Detric%73"):
        assert httpx.get(f"{scale.callers}/{path}").status_code == 404
    assert "haproxy_server_status" in httpx.get(f"{scale.metrics}/metrics").text


def test_a_caller_that_hangs_up_ends_its_request_behind(scale: Scale) -> None:
    for engine in scale.gateways:
        engine.orders = Orders(seconds_per_token=1)
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", f"{scale.callers}/v1/chat/completions", json={**BODY, "stream": True}),
    ):
        assert sum(engine.running for engine in scale.gateways) == 1
    assert within(20, lambda: sum(engine.running for engine in scale.gateways) == 0)
