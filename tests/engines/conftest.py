"""The real vLLM servers that tests of several engines share: each starts once, when a test first asks for it."""

from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.blends import TinyBlend
from tests.engines.vllm.server import SMALL, VllmServer, running
from tests.tiny import TinyAdapter
from tools.processes import free_port


@pytest.fixture(scope="session")
def rheostat_in_vllm(
    tiny_model: Path,
    tiny_adapters: list[TinyAdapter],
    tiny_blend: TinyBlend,
    tiny_scorers: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[VllmServer]:
    """`rheostat serve --engine vllm` with the tiny model, named `tiny`, and all that it has, in developer mode."""
    _require_vllm()
    port = free_port()
    adapters = [f"--adapter={adapter.folder}" for adapter in tiny_adapters]
    address = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny"]
    means = [*adapters, f"--blend={tiny_blend.folder}", f"--scorers={tiny_scorers}"]
    command: list[str | Path] = ["rheostat", "serve", tiny_model, "--engine", "vllm", *means, *address, "--", *SMALL]
    with running(
        [*command, "--enable-server-load-tracking"],
        port=port,
        log=tmp_path_factory.mktemp("vllm") / "rheostat.log",
        path="/ready",
        environment={"VLLM_SERVER_DEV_MODE": "1", "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "1"},
    ) as server:
        yield server


@pytest.fixture(scope="session")
def bare_vllm(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tmp_path_factory: pytest.TempPathFactory
) -> Generator[VllmServer]:
    """Plain `vllm serve` with the same model, named `tiny`, the same adapters under their ids, and room for blends."""
    _require_vllm()
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny"]
    lora = ["--enable-lora", "--max-loras", "28", "--max-lora-rank", "8", "--lora-modules"]
    modules = [f"{adapter.id}={adapter.folder}" for adapter in tiny_adapters]
    with running(
        ["vllm", "serve", tiny_model, *address, *SMALL, *lora, *modules],
        port=port,
        log=tmp_path_factory.mktemp("vllm") / "bare.log",
        path="/health",
        environment={"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
    ) as server:
        yield server


def _require_vllm() -> None:
    if find_spec("vllm") is None:
        pytest.skip("no build of vLLM is installed")
