"""Real vLLM servers for tests, and programs with vLLM in their own process: small, and gone when their block ends."""

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tools import processes
from tools.processes import Process, output_of, wait_until_ready

# One thread: on two cores, OpenMP's threads would wait for each other whenever anything else runs.
QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
ALONE: Final = {**QUIET, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
TOOLS: Final = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
SMALL: Final = ("--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", "64M", "--seed", "0", *TOOLS)


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A running server. `log` holds what it wrote."""

    url: str
    log: Path
    process: Process

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
        wait_until_ready(server.process, f"{server.url}{path}", log=log)
        yield server


@contextmanager
def started(
    command: Sequence[str | Path], *, port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Generator[VllmServer]:
    """The same without waiting."""
    with processes.started(command, log=log, environment={**QUIET, **(environment or {})}) as process:
        yield VllmServer(f"http://127.0.0.1:{port}", log, process)


def run_with_vllm(arguments: Sequence[str | Path], *, log: Path) -> str:
    """What a Python process says that uses vLLM without a server; other people's warnings are not shown."""
    return output_of([sys.executable, "-W", "ignore", *arguments], log=log, within_s=240, environment=ALONE)
