"""The two servers that a comparison needs: vLLM with Rheostat in it and bare vLLM, with one model and equal flags."""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rheostat_server.contract.manifest import read_manifest
from tools.processes import free_port, started, wait_until_ready

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
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started([*command, str(port), *more], log=log, environment={"VLLM_NO_USAGE_STATS": "1"}) as process:
        wait_until_ready(process, f"{url}/health", log=log)
        yield url
