"""vLLM's own command, in several processes: every one has our plugin, with the settings and the adapters."""

import json
from pathlib import Path

import httpx
import pytest

from rheostat_server.engines.vllm.flags import GUARD
from tests.engines.vllm.server import SMALL, VllmServer, running
from tests.tiny import TinyAdapter
from tools.processes import free_port


@pytest.mark.slow
def test_vllms_own_command_serves_the_adapters_in_every_api_server_process(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tmp_path: Path
) -> None:
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny"]
    lora = ["--enable-lora", "--max-loras", "3", "--max-lora-rank", "8"]
    environment = {
        "VLLM_PLUGINS": "rheostat",
        "RHEOSTAT_ADAPTERS": json.dumps([str(adapter.folder) for adapter in tiny_adapters]),
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


def answer_by_a_new_connection(server: VllmServer, adapter: TinyAdapter) -> tuple[int, str]:
    control = {"mode": "adapter", "adapter": adapter.id, "safety": 0.5, "helpfulness": 0.5}
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 8}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={**asked, "control": control}, timeout=60)
    return answer.status_code, answer.json()["choices"][0]["message"]["content"]
