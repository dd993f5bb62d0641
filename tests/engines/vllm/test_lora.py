"""Adapters in vLLM: loaded under their addresses, or the start is refused."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse
from vllm.platforms import current_platform

from rheostat_server.adapters import AdapterRefused, AdapterStore, load_adapters
from rheostat_server.engines.vllm.lora import load_into_vllm
from tests.tiny import TinyAdapter

ROOM = {"enable_lora": True, "max_loras": 3, "max_cpu_loras": 3}


class Models:
    """Stands in for vLLM's OpenAIServingModels, and keeps what it was told to load."""

    def __init__(self, answer: object = "Success") -> None:
        self._answer = answer
        self.loaded: list[tuple[str, str]] = []

    async def load_lora_adapter(self, request: Any) -> object:
        self.loaded.append((request.lora_name, request.lora_path))
        return self._answer


@pytest.fixture(scope="module")
def two(tiny_adapters: list[TinyAdapter]) -> AdapterStore:
    return load_adapters([adapter.folder for adapter in tiny_adapters], base_digest=None)


async def test_adapters_are_loaded_in_their_order_under_their_addresses(two: AdapterStore) -> None:
    models = Models()
    await load_into_vllm(two, models, Namespace(**ROOM))
    assert models.loaded == [(adapter.id, str(Path(adapter.folder).resolve())) for adapter in two.adapters]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"enable_lora": False}, "without --enable-lora"),
        ({"max_loras": 2}, "on the CPU it must be 3"),
        ({"max_cpu_loras": 1}, "raise --max-cpu-loras"),
    ],
)
async def test_a_vllm_without_room_for_all_adapters_is_refused(
    two: AdapterStore, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda platform: True)
    models = Models()
    with pytest.raises(AdapterRefused, match=reason):
        await load_into_vllm(two, models, Namespace(**{**ROOM, **flags}))
    assert models.loaded == []


async def test_an_adapter_that_vllm_cannot_load_is_refused_with_its_reason(two: AdapterStore) -> None:
    error = ErrorResponse(error=ErrorInfo(message="rank too high", type="BadRequestError", code=400))
    with pytest.raises(AdapterRefused, match=f"{two.ids[0]}.*rank too high"):
        await load_into_vllm(two, Models(error), Namespace(**ROOM))


async def test_without_adapters_vllm_needs_no_room() -> None:
    await load_into_vllm(AdapterStore(), SimpleNamespace(), Namespace(enable_lora=False))
