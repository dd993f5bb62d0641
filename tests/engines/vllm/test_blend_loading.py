"""Blends in vLLM without a model: their numbers, their room, and what is left where vLLM does not take one."""

import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.datastructures import State
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.v1.engine.exceptions import EngineDeadError

from rheostat_server.adapters import AdapterRefused, AdapterStore, load_adapters
from rheostat_server.blending.store import Blend, BlendStore, load_blend
from rheostat_server.contract.dials import Dials
from rheostat_server.engines.blend_files import BlendFiles
from rheostat_server.engines.vllm import blends as module
from rheostat_server.engines.vllm.blends import FIRST_NUMBER, VllmBlends, number_of
from rheostat_server.engines.vllm.flags import completed
from rheostat_server.engines.vllm.lora import check_numbers, room_for_blends
from rheostat_server.engines.vllm.plugin import RheostatPlugin
from rheostat_server.errors import CannotStart, EngineFailed, EngineUnavailable, RheostatError
from rheostat_server.settings import Settings
from tests.blends import TinyBlend
from tests.engines.vllm.test_flags import SETTINGS, read_by_vllm
from tests.tiny import TinyAdapter


class Client:
    """Stands in for vLLM's client of its engine."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.loras: dict[int, LoRARequest] = {}

    async def add_lora(self, request: LoRARequest) -> bool:
        if self.error:
            raise self.error
        self.loras[request.lora_int_id] = request
        return True

    async def remove_lora(self, number: int) -> bool:
        if self.error:
            raise self.error
        return self.loras.pop(number, None) is not None


@pytest.fixture
def blend(tiny_blend: TinyBlend) -> Blend:
    return load_blend(tiny_blend.folder, base_digest=None)


def loading(folder: Path, client: Client) -> VllmBlends:
    return VllmBlends(SimpleNamespace(lora_requests={}), client, BlendFiles.within(folder), room=2)


async def test_a_blend_is_found_by_its_address_until_it_is_unloaded(blend: Blend, tmp_path: Path) -> None:
    client = Client()
    into, point = loading(tmp_path, client), blend.at(Dials(safety=1, helpfulness=1), {})
    await into.load(point.address, point.parts)
    request = into.models.lora_requests[point.address]
    assert client.loras == {number_of(point.address): request}
    assert (Path(request.lora_path) / "adapter_model.safetensors").is_file()
    await into.unload(point.address)
    await into.unload(point.address)
    assert (into.models.lora_requests, client.loras) == ({}, {})


@pytest.mark.parametrize(
    ("error", "expected"), [(Exception("rank"), EngineFailed), (EngineDeadError(), EngineUnavailable)]
)
async def test_a_blend_that_vllm_does_not_take_is_not_registered(
    blend: Blend, tmp_path: Path, error: Exception, expected: type[RheostatError]
) -> None:
    into, point = loading(tmp_path, Client(error)), blend.at(Dials(safety=1, helpfulness=1), {})
    with pytest.raises(expected):
        await into.load(point.address, point.parts)
    assert into.models.lora_requests == {}


async def test_two_blends_never_have_one_number(blend: Blend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "number_of", lambda address: FIRST_NUMBER)
    client = Client()
    into, (one, other) = loading(tmp_path, client), blend.points()[:2]
    await into.load(one.address, one.parts)
    with pytest.raises(EngineFailed, match="same number"):
        await into.load(other.address, other.parts)
    assert [request.lora_name for request in client.loras.values()] == [one.address]


def test_a_number_is_that_of_the_address_and_none_of_vllms_own(blend: Blend) -> None:
    numbers = [number_of(point.address) for point in blend.points()]
    assert numbers == [number_of(point.address) for point in blend.points()]
    assert len(set(numbers)) == 25
    assert all(FIRST_NUMBER <= number < 2**31 for number in numbers)
    assert number_of("patches@0123456789ab") == 1993487200


def test_numbers_that_clash_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    check_numbers(["a@1", "b@1", "a@1"])
    monkeypatch.setattr("rheostat_server.engines.vllm.lora.number_of", lambda address: len(address))
    with pytest.raises(AdapterRefused, match="b@1 and a@1 would have one number"):
        check_numbers(["a@1", "b@1"])


@pytest.fixture(scope="module")
def two(tiny_adapters: list[TinyAdapter]) -> AdapterStore:
    return load_adapters([adapter.folder for adapter in tiny_adapters], base_digest=None)


@pytest.mark.parametrize(
    ("on_the_cpu", "max_loras", "max_cpu_loras", "processes", "room"),
    [(True, 28, 28, 1, 25), (True, 28, 60, 2, 12), (False, 8, 27, 1, 25), (False, 8, None, 1, 6), (False, 8, 27, 4, 6)],
)
def test_the_room_is_what_the_adapters_leave_shared_by_the_api_servers(
    monkeypatch: pytest.MonkeyPatch, on_the_cpu: bool, max_loras: int, max_cpu_loras: int | None,
    processes: int, room: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda platform: on_the_cpu)
    args = Namespace(enable_lora=True, max_loras=max_loras, max_cpu_loras=max_cpu_loras)
    assert room_for_blends(["ours@1", "of-vllms-flags"], args, processes=processes) == room


class Served:
    """As much of vLLM's state as a start takes: one adapter of its own flags, and what it was told to load."""

    def __init__(self) -> None:
        self.lora_requests: dict[str, LoRARequest] = {"theirs": LoRARequest("theirs", 1, "theirs")}
        self.base_model_paths = [SimpleNamespace(name="tiny")]

    async def load_lora_adapter(self, request: Any) -> str:
        self.lora_requests[request.lora_name] = LoRARequest(
            request.lora_name, len(self.lora_requests) + 1, request.lora_path
        )
        return "Success"


def starting(client: Client) -> State:
    parallel = SimpleNamespace(_api_process_count=1, data_parallel_size=1)
    config = SimpleNamespace(
        parallel_config=parallel, scheduler_config=SimpleNamespace(max_num_seqs=8), model_config=None
    )
    return State(
        {
            "args": SimpleNamespace(sse_keep_alive_interval=0),
            "openai_serving_chat": object(),
            "openai_serving_models": Served(),
            "engine_client": client,
            "vllm_config": config,
        }
    )


@pytest.fixture
def operator(
    monkeypatch: pytest.MonkeyPatch, tiny_blend: TinyBlend, tiny_adapters: list[TinyAdapter], tmp_path: Path
) -> pytest.MonkeyPatch:
    """The environment of a server with two adapters and a blend, whose files go to `tmp_path`."""
    digest = tiny_blend.manifest.base_model.digest
    monkeypatch.setattr("rheostat_server.engines.vllm.plugin.served_model_digest", lambda config: digest)
    monkeypatch.setattr("rheostat_server.engines.vllm.plugin.configure_logging", lambda level: None)
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda platform: True)
    monkeypatch.setenv("RHEOSTAT_ADAPTERS", json.dumps([str(adapter.folder) for adapter in tiny_adapters]))
    monkeypatch.setenv("RHEOSTAT_BLENDS", json.dumps([str(tiny_blend.folder)]))
    monkeypatch.setenv("RHEOSTAT_BLEND_FOLDER", str(tmp_path))
    return monkeypatch


ARGS = Namespace(enable_lora=True, max_loras=9, max_cpu_loras=9, uds=None, host="127.0.0.1")


@pytest.mark.usefixtures("operator")
async def test_adapters_of_vllms_own_flags_take_their_room(tmp_path: Path) -> None:
    client = Client()
    state = starting(client)
    await RheostatPlugin().init_state(client, state, ARGS)
    assert state.rheostat.engine.blend_room == 9 - 1 - 3, "one slot stays empty, one has theirs, and two ours"
    assert client.loras == {}
    assert len(list(tmp_path.iterdir())) == 1
    await state.rheostat.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_start_that_fails_leaves_no_files(operator: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = Client(Exception("rank"))
    with pytest.raises(AdapterRefused, match="vLLM does not load the blend"):
        await RheostatPlugin().init_state(client, starting(client), ARGS)
    assert list(tmp_path.iterdir()) == []
    operator.setenv("RHEOSTAT_SCORERS", str(tmp_path / "none.yaml"))
    client.error = None
    with pytest.raises(CannotStart, match=r"none\.yaml"):
        await RheostatPlugin().init_state(client, starting(client), ARGS)
    assert list(tmp_path.iterdir()) == []


async def test_a_load_that_was_given_up_is_unloaded_all_the_same(blend: Blend, tmp_path: Path) -> None:
    """It may be in vLLM, which had not yet said so."""
    client = Client()
    into, point = loading(tmp_path, client), blend.at(Dials(safety=1, helpfulness=1), {})
    await into.load(point.address, point.parts)
    del into.models.lora_requests[point.address]
    await into.unload(point.address)
    assert client.loras == {}


@pytest.mark.parametrize(
    ("flags", "reason"), [({"enable_lora": False}, "without --enable-lora"), ({"max_loras": 3}, "raise --max-loras")]
)
def test_a_vllm_without_room_for_a_blend_is_refused(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda platform: True)
    with pytest.raises(AdapterRefused, match=reason):
        room_for_blends(
            ["a@1", "b@1"], Namespace(**{"enable_lora": True, "max_loras": 9, "max_cpu_loras": 9, **flags}), processes=1
        )


@pytest.mark.parametrize(("on_the_cpu", "slots"), [(True, 28), (False, 8)])
def test_blends_get_the_room_and_the_rank_they_need(
    two: AdapterStore, blend: Blend, monkeypatch: pytest.MonkeyPatch, on_the_cpu: bool, slots: int
) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda platform: on_the_cpu)
    read = read_by_vllm(completed(SETTINGS, two, [], blends=BlendStore((blend,))))
    assert (read["max_loras"], read["max_cpu_loras"]) == (slots, 28 if on_the_cpu else 27)
    assert read["max_lora_rank"] == 8
    few = Settings(**{**SETTINGS.model_dump(exclude_unset=True), "blend_slots": 2})
    assert read_by_vllm(completed(few, AdapterStore(), [], blends=BlendStore((blend,))))["max_loras"] == 2 + on_the_cpu


def test_adapters_of_the_operators_flags_get_room_beside_ours(
    two: AdapterStore, blend: Blend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda platform: True)
    read = read_by_vllm(completed(SETTINGS, two, ["--lora-modules", "a=x", "b=y"], blends=BlendStore((blend,))))
    assert (read["max_loras"], read["max_cpu_loras"]) == (2 + 2 + 25 + 1, 2 + 2 + 25 + 1)
