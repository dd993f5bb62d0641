"""A replica whose engine is vLLM, in the replica's own process: our routes in vLLM's app, and nothing else open."""

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped] # it has no types
import pytest

from tests.engines.vllm.server import QUIET, SMALL
from tests.ray.cluster import RayCluster, Replica
from tests.tiny import TinyAdapter
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.timeout(600)]
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "How do I keep a garden?"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def url(cluster: RayCluster, tiny_model: Path, tiny_adapters: list[TinyAdapter]) -> str:
    if find_spec("vllm") is None:
        pytest.skip("no build of vLLM is installed")
    cluster.start_head()
    settings = {
        **QUIET,
        "RHEOSTAT_ENGINE": "vllm",
        "RHEOSTAT_MODEL": str(tiny_model),
        "RHEOSTAT_SERVED_MODEL_NAME": "tiny",
        "RHEOSTAT_ADAPTERS": json.dumps([str(adapter.folder) for adapter in tiny_adapters]),
    }
    cluster.deploy({"autoscaling_config": None, "num_replicas": 1}, settings, SMALL)
    cluster.wait_for(1)
    return f"http://127.0.0.1:{cluster.http}"


def test_an_adapter_answers_whole_and_streamed(url: str) -> None:
    body = {**ASKED, "control": {"safety": 0.5, "helpfulness": 0.5, "mode": "adapter"}}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["control"]["effective"] == {"safety": 0.5, "helpfulness": 0.5}
    assert "@" in answer["model"]
    events = httpx.post(f"{url}/v1/chat/completions", json={**body, "stream": True}, timeout=60).text
    assert events.endswith("data: [DONE]\n\n")
    assert '"control"' in events


def test_vllms_own_routes_are_closed(url: str) -> None:
    assert httpx.post(f"{url}/v1/completions", json={"model": "tiny", "prompt": "A"}, timeout=60).status_code == 404


def test_a_replica_whose_engine_is_dead_is_replaced(url: str, cluster: RayCluster) -> None:
    [before] = cluster.wait_for(1)
    for engine in processes_of(before):
        os.kill(engine.pid, signal.SIGKILL)
    until(lambda: bool(now := cluster.replicas()) and now != [before], within_s=240, every_s=0.5)
    assert httpx.post(f"{url}/v1/chat/completions", json=ASKED, timeout=60).status_code == 200


def test_a_killed_replica_takes_its_engine_with_it(url: str, cluster: RayCluster) -> None:
    [replica] = cluster.wait_for(1)
    left = processes_of(replica)
    os.kill(replica.pid, signal.SIGKILL)
    until(lambda: not any(map(is_alive, left)), within_s=240, every_s=0.5)


def is_alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def processes_of(replica: Replica) -> list[psutil.Process]:
    """vLLM's engine and its workers; on a GPU they hold its memory."""
    found = [each for each in psutil.Process(replica.pid).children(recursive=True) if "VLLM" in each.name()]
    assert found
    return found
