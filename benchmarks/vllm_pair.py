"""The two servers that a comparison needs: vLLM with Rheostat in it and bare vLLM, with one model and equal flags."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from rheostat_server.contract.manifest import read_manifest

BIN: Final = Path(sys.executable).parent
STARTS_WITHIN_S: Final = 300
NAME: Final = "model"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is served: a base model, its adapter, and vLLM's flags for it."""

    model: Path
    adapter: Path
    flags: Sequence[str]

    @property
    def adapter_id(self) -> str:
        return read_manifest(self.adapter).id

    @property
    def served_rank(self) -> int:
        """The smallest rank of vLLM's that holds the adapter."""
        rank: int = json.loads((self.adapter / "adapter_config.json").read_bytes())["r"]
        return min(served for served in (8, 16, 32, 64, 128, 256) if served >= rank)


@dataclass(frozen=True, slots=True)
class Pair:
    """The URLs of both."""

    ours: str
    bare: str


@contextmanager
def serving(subject: Subject, logs: Path) -> Generator[Pair, None, None]:
    """Both servers until the block ends."""
    address = ["--host", "127.0.0.1", "--served-model-name", NAME, "--port"]
    room = [*subject.flags, "--max-loras", "2", "--max-lora-rank", str(subject.served_rank)]
    ours: list[str | Path] = [
        "rheostat",
        "serve",
        subject.model,
        "--engine",
        "vllm",
        "--adapter",
        subject.adapter,
        *address,
    ]
    bare: list[str | Path] = ["vllm", "serve", subject.model, *address]
    lora = ["--enable-lora", "--lora-modules", f"{subject.adapter_id}={subject.adapter}"]
    with (
        _server(ours, ["--", *room], logs / "ours.log") as ours_url,
        _server(bare, [*room, *lora], logs / "bare.log") as bare_url,
    ):
        yield Pair(ours_url, bare_url)


@contextmanager
def _server(command: Sequence[str | Path], more: Sequence[str], log: Path) -> Generator[str, None, None]:
    """Runs `command`, a free port and `more`, until the block ends."""
    port = _free_port()
    program, *arguments = command
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / program, *arguments, str(port), *more],
            env={**os.environ, "VLLM_NO_USAGE_STATS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # no session of its own: beside one whose engine spins, Linux starves the clients
        )
    try:
        _wait(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        time.sleep(1)
    raise SystemExit(f"a server did not start; the end of {log}:\n{log.read_text()[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sent, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
