"""The servers of the reranking benchmark: the demo on the embedded engine, in vLLM, and in front of a bare vLLM."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rheostat_server import demo
from rheostat_server.engines.vllm.launch import DEMO_FLAGS
from tools.processes import free_port, started, wait_until_ready

MODEL: Final = "demo"


@contextmanager
def rheostat(
    folder: Path, *, engine: str, environment: Mapping[str, str] | None = None, upstream: str | None = None
) -> Generator[str, None, None]:
    """A Rheostat server of the demo model until the block ends; its settings are environment variables."""
    command: list[str | Path] = ["rheostat", "serve", "--engine", engine]
    if upstream is not None:
        command += ["--upstream", upstream]
    with _server(command, folder / f"{engine}.log", environment) as url:
        yield url


@contextmanager
def bare_vllm(folder: Path) -> Generator[str, None, None]:
    """vLLM alone with the demo's base model."""
    command: list[str | Path] = ["vllm", "serve", demo.base_folder(), "--served-model-name", MODEL, *DEMO_FLAGS]
    with _server(command, folder / "bare.log", None) as url:
        yield url


@contextmanager
def optillm(program: Path, upstream: str, folder: Path, *, candidates: int) -> Generator[str, None, None]:
    """optillm in front of a server, answering every request by its `bon`."""
    more = ["--approach", "bon", "--best-of-n", str(candidates), "--base-url", f"{upstream}/v1", "--log", "error"]
    with _server([program, *more], folder / "optillm.log", {"OPENAI_API_KEY": "none"}, path="/health") as url:
        yield url


@contextmanager
def _server(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None, *, path: str = "/health"
) -> Generator[str, None, None]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"VLLM_NO_USAGE_STATS": "1", **(environment or {})}
    with started([*command, "--port", str(port)], log=log, environment=settings) as process:
        wait_until_ready(process, f"{url}{path}", log=log)
        yield url
