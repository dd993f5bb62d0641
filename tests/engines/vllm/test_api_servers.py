"""vLLM's own command, in several processes: every one has our plugin, with the settings and the adapters."""

import json
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from rheostat_server.engines.vllm.flags import GUARD
from tests.blends import TinyBlend
from tests.engines.vllm.server import SMALL, VllmServer, running
from tests.tiny import TinyAdapter
from tools.processes import free_port

LEVELS: Final = [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.slow
def test_vllms_own_command_serves_the_adapters_in_every_api_server_process(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tiny_blend: TinyBlend, tmp_path: Path
) -> None:
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny"]
    lora = ["--enable-lora", "--max-loras", "7", "--max-lora-rank", "8"]
    environment = {
        "VLLM_PLUGINS": "rheostat",
        "RHEOSTAT_ADAPTERS": json.dumps([str(adapter.folder) for adapter in tiny_adapters]),
        "RHEOSTAT_BLENDS": json.dumps([str(tiny_blend.folder)]),
    }
    with running(
        ["vllm", "serve", tiny_model, *address, *SMALL, *lora, "--middleware", GUARD, "--api-server-count", "2"],
        port=port,
        log=tmp_path / "log",
        path="/ready",
        environment=environment,
    ) as server:
        answers = [answer_by_a_new_connection(server, tiny_adapters[index % 2]) for index in range(12)]
        assert [status for status, _ in answers] == [200] * 12
        assert len({text for _, text in answers}) == 2
        assert httpx.post(f"{server.url}/v1/completions", json={}).status_code == 404
        assert server.log.read_text().count("rheostat serves in vLLM") == 2
        blended = [(level, *answer_at(server, level)) for level in LEVELS * 6]
        assert {status for _, status, _ in blended} == {200}
        assert len({(level, text) for level, _, text in blended}) == len(LEVELS), "each point answers in one way"
        assert len({text for _, _, text in blended}) == len(LEVELS)


def answer_at(server: VllmServer, level: float) -> tuple[int, str]:
    """Of each process, which has room for two blends; more are asked for, in another order of each."""
    return answered(server, {"mode": "blend", "safety": level, "helpfulness": 1})


def answer_by_a_new_connection(server: VllmServer, adapter: TinyAdapter) -> tuple[int, str]:
    return answered(server, {"mode": "adapter", "adapter": adapter.id, "safety": 0.5, "helpfulness": 0.5})


def answered(server: VllmServer, control: dict[str, Any]) -> tuple[int, str]:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 32}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={**asked, "control": control}, timeout=60)
    return answer.status_code, answer.json()["choices"][0]["message"]["content"]
