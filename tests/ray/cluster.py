"""A real Ray cluster on loopback: nodes that are started and killed as machines are, and what Serve says of itself."""

import os
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil  # type: ignore[import-untyped] # it has no types
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tools.processes import ROOT, Process, ProgramFailed, free_port, output_of, started

SERVE_FILE: Final = ROOT / "docker" / "ray" / "serve.yaml"
WITHIN_S: Final = 120
ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_enable_metrics_collection": "1",
}


@dataclass(frozen=True, slots=True)
class Replica:
    """As Serve's own API tells it."""

    id: str
    pid: int
    node: str


@dataclass(frozen=True, slots=True)
class Node:
    """A Ray node: its proxy's port, and where its metrics are."""

    process: Process
    http: int
    metrics: int

    def pids(self) -> set[int]:
        """Of all its processes: Ray's own, the proxy, replicas."""
        first = psutil.Process(self.process.pid)
        return {first.pid, *(child.pid for child in first.children(recursive=True))}

    def figures(self) -> dict[tuple[str, str, str], float]:
        """Chat requests by replica, mode and outcome, as this node exports them."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10).text
        families = [
            each for each in text_string_to_metric_families(text) if each.name.startswith("ray_rheostat_requests")
        ]
        return {
            (sample.labels["replica"], sample.labels["mode"], sample.labels["outcome"]): sample.value
            for family in families
            for sample in family.samples
        }

    def kill(self) -> None:
        """As if its machine lost power: all stand still before the first is gone, so that none can tell anyone."""
        pids = self.pids()
        for sent in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, sent)
        self.process.wait()


@dataclass(slots=True)
class RayCluster:
    """A head node, and others that come and go. `folder` has to be short: Ray puts sockets under it."""

    folder: Path
    gcs: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    _running: ExitStack = field(default_factory=ExitStack)
    _nodes: list[Node] = field(default_factory=list)

    def start_head(self) -> Node:
        client, agent = free_port(), free_port()
        flags = ["--head", "--port", self.gcs, "--dashboard-host", "127.0.0.1", "--dashboard-port", self.dashboard]
        flags += ["--ray-client-server-port", client, "--temp-dir", self.folder / "t"]
        node = self._start(flags, http=self.http, agent=agent)
        self._wait(lambda: self._get("/api/version") is not None, "Ray's head node")
        return node

    def start_worker(self) -> Node:
        return self._start(["--address", f"127.0.0.1:{self.gcs}"], http=free_port(), agent=free_port())

    def deploy(
        self, changes: Mapping[str, Any], settings: Mapping[str, str] | None = None, flags: Sequence[str] = ()
    ) -> None:
        """The repository's own Serve file, on this cluster's port, with these changes of the deployment."""
        file = yaml.safe_load(SERVE_FILE.read_text())
        file["http_options"]["port"] = self.http
        [application] = file["applications"]
        application["runtime_env"]["env_vars"] |= settings or {}
        application["args"] = {"flags": [*flags]}
        [deployment] = application["deployments"]
        deployment |= changes
        path = self.folder / "serve.yaml"
        path.write_text(yaml.safe_dump(file))
        command: list[str | Path] = ["serve", "deploy", path, "--address", f"http://127.0.0.1:{self.dashboard}"]
        output_of(command, log=self.folder / "deploy.log", within_s=WITHIN_S)

    def application(self) -> dict[str, Any]:
        """What Serve says of the application; empty while it says nothing."""
        told = self._get("/api/serve/applications/") or {}
        application: dict[str, Any] = told.get("applications", {}).get("rheostat", {})
        return application

    def replicas(self) -> list[Replica]:
        """Those that answer requests."""
        deployment = self.application().get("deployments", {}).get("Rheostat", {})
        running = [each for each in deployment.get("replicas", []) if each["state"] == "RUNNING"]
        return [Replica(each["replica_id"], each["pid"], each["node_id"]) for each in running]

    def wait_for(self, replicas: int) -> list[Replica]:
        """So many replicas answer, and none besides."""
        self._wait(lambda: len(self.replicas()) == replicas, f"{replicas} replicas")
        return self.replicas()

    def stop(self) -> None:
        """Ray takes half a minute when it is asked."""
        for node in self._nodes:
            if node.process.poll() is None:
                node.kill()
        self._running.close()

    def _start(self, flags: Sequence[object], *, http: int, agent: int) -> Node:
        metrics, grpc = free_port(), free_port()
        common = ["--block", "--node-ip-address", "127.0.0.1", "--num-cpus", 1, "--object-store-memory", 100 * 2**20]
        common += ["--min-worker-port", 0, "--max-worker-port", 0, "--metrics-export-port", metrics]
        common += ["--dashboard-agent-listen-port", agent, "--dashboard-agent-grpc-port", grpc]
        log = self.folder / f"node-{len(self._nodes)}.log"
        environment = {**ENVIRONMENT, "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(http)}
        command = ["ray", "start", *map(str, [*flags, *common])]
        process = self._running.enter_context(started(command, log=log, environment=environment))
        self._nodes.append(Node(process, http, metrics))
        return self._nodes[-1]

    def _get(self, path: str) -> Any:
        with suppress(httpx.TransportError):
            response = httpx.get(f"http://127.0.0.1:{self.dashboard}{path}", timeout=10)
            return response.json() if response.status_code == 200 else None
        return None

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not reached():
            if time.monotonic() > deadline:
                raise ProgramFailed(f"no {what} within {WITHIN_S} s; Serve says: {self.application()}")
            time.sleep(0.2)


@contextmanager
def ray_cluster(folder: Path) -> Generator[RayCluster]:
    cluster = RayCluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()
