"""Adapters whose folder goes away under a running server, and adapters that a vLLM upstream has lost."""

import shutil
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from rheostat_server.engines import EngineRequest
from rheostat_server.engines.remote import RemoteEngine, Upstream
from rheostat_server.errors import EngineUnavailable
from tests.engines.vllm.server import SMALL, VllmServer, running
from tests.engines.vllm.test_in_vllm import ask, body, text
from tests.tiny import TinyAdapter
from tools.processes import free_port


@pytest.fixture
def copies(tiny_adapters: list[TinyAdapter], tmp_path: Path) -> list[TinyAdapter]:
    """Of the adapters, to be spoilt."""
    return [
        TinyAdapter(Path(shutil.copytree(adapter.folder, tmp_path / adapter.manifest.name)), adapter.manifest)
        for adapter in tiny_adapters
    ]


@pytest.fixture
def updatable_vllm(tiny_model: Path, tmp_path: Path) -> Generator[VllmServer]:
    """Plain `vllm serve` that loads adapters when it is told to, and forgets them so too."""
    port = free_port()
    lora = ["--enable-lora", "--max-loras", "3", "--max-lora-rank", "8"]
    with running(
        ["vllm", "serve", tiny_model, "--served-model-name", "tiny", "--port", str(port), *SMALL, *lora],
        port=port,
        log=tmp_path / "vllm.log",
        path="/health",
        environment={"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
    ) as server:
        yield server


def test_adapters_answer_as_before_when_their_folders_are_deleted_or_replaced(
    copies: list[TinyAdapter], tiny_model: Path, tmp_path: Path
) -> None:
    port = free_port()
    means = [f"--adapter={adapter.folder}" for adapter in copies]
    command: list[str | Path] = [
        "rheostat", "serve", tiny_model, "--engine", "vllm", "--served-model-name", "tiny", *means,
    ]  # fmt: skip
    asked = [body(control={"safety": 0.25, "mode": "adapter", "adapter": adapter.id}) for adapter in copies]
    with running(
        [*command, "--port", str(port), "--", *SMALL], port=port, log=tmp_path / "server.log", path="/ready"
    ) as server:
        answer, unasked = text(ask(server, asked[0])), copies[1].folder
        shutil.rmtree(copies[0].folder)
        shutil.rmtree(unasked)
        shutil.copytree(tiny_model, unasked)
        assert text(ask(server, asked[0])) == answer
        assert text(ask(server, asked[1])) != answer
        assert text(ask(server, asked[0])) == answer
        assert httpx.get(f"{server.url}/ready").status_code == 200


async def test_an_adapter_that_the_upstream_unloaded_is_loaded_again(
    updatable_vllm: VllmServer, copies: list[TinyAdapter]
) -> None:
    adapter = copies[0]
    remote = await RemoteEngine.connect(
        Upstream(updatable_vllm.url), adapters={adapter.id: adapter.folder}, load_adapters=True
    )
    request = EngineRequest({**body(), "model": adapter.id}, "r1")
    try:
        answer = await remote.complete(request)
        unload(updatable_vllm, adapter)
        assert (await remote.complete(request))["choices"] == answer["choices"]
        unload(updatable_vllm, adapter)
        shutil.rmtree(adapter.folder)
        with pytest.raises(EngineUnavailable, match="no longer holds it"):
            await remote.complete(request)
    finally:
        await remote.close()


def unload(server: VllmServer, adapter: TinyAdapter) -> None:
    answer = httpx.post(f"{server.url}/v1/unload_lora_adapter", json={"lora_name": adapter.id})
    assert answer.status_code == 200, answer.text
