"""Real vLLM servers for tests: started once, on a free port, and always stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

BIN: Final = Path(sys.executable).parent
STARTS_WITHIN_S: Final = 280
# One thread: on two cores, OpenMP's threads would wait for each other whenever anything else runs.
QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
TOOLS: Final = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
SMALL: Final = ("--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", "64M", "--seed", "0", *TOOLS)


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A running server. `log` holds what it wrote."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def number(self, metric: str) -> float:
        """The sum of a metric's samples on `/metrics`."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{metric}{{", f"{metric} ")))

    def engine_process(self) -> int:
        """The process id of the engine, as the server logged it."""
        marker = "(EngineCore pid="
        line = next(line for line in self.log.read_text().splitlines() if marker in line)
        return int(line.split(marker)[1].split(")")[0])


@contextmanager
def running(
    command: Sequence[str | Path], *, port: int, log: Path, path: str, environment: Mapping[str, str] | None = None
) -> Generator[VllmServer]:
    """Runs `command`, which listens on `port`, until the block ends; enters it when `path` answers 200."""
    with started(command, port=port, log=log, environment=environment) as server:
        _wait(server, path)
        yield server


@contextmanager
def started(
    command: Sequence[str | Path], *, port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Generator[VllmServer]:
    """The same without waiting. The whole process group ends with the block."""
    program, *arguments = command
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / program, *arguments],
            env={**os.environ, **QUIET, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # no session of its own: beside one whose engine spins, Linux starves the clients
        )
    try:
        yield VllmServer(f"http://127.0.0.1:{port}", log, process)
    finally:
        _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(server: VllmServer, path: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and server.process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{server.url}{path}", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise AssertionError(f"the server did not start; the end of its log:\n{server.log.read_text()[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], sent: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, sent)
