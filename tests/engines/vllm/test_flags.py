"""What `rheostat serve` adds to the flags of `vllm serve`, and what it refuses."""

import json
from pathlib import Path

import pytest
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser

from rheostat_server.adapters import AdapterRefused, AdapterStore, load_adapters
from rheostat_server.engines.vllm.environment import set_environment
from rheostat_server.engines.vllm.flags import CROSS_ORIGIN, GUARD, completed
from rheostat_server.errors import CannotStart
from rheostat_server.settings import Settings
from tests.tiny import TinyAdapter

SETTINGS = Settings(model="folder/model", host="127.0.0.1", port=8123, served_model_name="name")


@pytest.fixture(scope="module")
def two(tiny_adapters: list[TinyAdapter]) -> AdapterStore:
    return load_adapters([adapter.folder for adapter in tiny_adapters], base_digest=None)


def read_by_vllm(flags: list[str]) -> dict[str, object]:
    parser = FlexibleArgumentParser()
    ServeSubcommand().subparser_init(parser.add_subparsers())
    arguments: dict[str, object] = vars(parser.parse_args(["serve", "model", *flags]))
    return arguments


def test_the_settings_become_flags_of_vllm() -> None:
    read = read_by_vllm(completed(SETTINGS, AdapterStore(), []))
    assert (read["host"], read["port"], read["served_model_name"]) == ("127.0.0.1", 8123, ["name"])
    assert read["middleware"] == [GUARD]
    assert not read["enable_lora"]


def test_origins_that_may_use_the_server_bring_their_middleware() -> None:
    opened = SETTINGS.model_copy(update={"cors_origins": ["https://app.example"]})
    assert read_by_vllm(completed(opened, AdapterStore(), []))["middleware"] == [GUARD, CROSS_ORIGIN]


def test_adapters_get_the_room_they_need(two: AdapterStore) -> None:
    read = read_by_vllm(completed(SETTINGS, two, []))
    assert read["enable_lora"] is True
    assert read["max_lora_rank"] == 8


@pytest.mark.parametrize(("on_the_cpu", "slots"), [(True, 3), (False, 2)])
def test_on_the_cpu_one_slot_stays_empty(
    two: AdapterStore, monkeypatch: pytest.MonkeyPatch, on_the_cpu: bool, slots: int
) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda platform: on_the_cpu)
    read = read_by_vllm(completed(SETTINGS, two, []))
    assert (read["max_loras"], read["max_cpu_loras"]) == (slots, slots)


def test_the_flags_of_the_operator_win(two: AdapterStore) -> None:
    flags = ["--max-loras", "1", "--port", "9", "--middleware", "a.B", "--max-lora-rank=64"]
    read = read_by_vllm(completed(SETTINGS, two, flags))
    assert (read["max_loras"], read["port"], read["max_lora_rank"]) == (1, 9, 64)
    assert read["middleware"] == [GUARD, "a.B"]


def test_the_config_file_of_the_operator_wins(tmp_path: Path) -> None:
    config = tmp_path / "vllm.yaml"
    config.write_text("port: 9\nserved-model-name: other\n")
    read = read_by_vllm(completed(SETTINGS, AdapterStore(), ["--config", str(config)]))
    assert (read["port"], read["served_model_name"]) == (9, ["other"])


def test_a_flag_that_starts_a_server_without_plugins_is_refused() -> None:
    with pytest.raises(CannotStart, match="--grpc"):
        completed(SETTINGS, AdapterStore(), ["--grpc"])


def test_a_config_file_that_starts_a_server_without_plugins_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "vllm.yaml"
    config.write_text("grpc: true\n")
    with pytest.raises(CannotStart, match="--grpc"):
        completed(SETTINGS, AdapterStore(), ["--config", str(config)])


def test_the_frontend_in_rust_is_refused_as_it_loads_no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(CannotStart, match="VLLM_USE_RUST_FRONTEND"):
        completed(SETTINGS, AdapterStore(), [])


def test_an_adapter_of_too_high_a_rank_is_refused(tmp_path: Path, two: AdapterStore) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "rank_pattern": {"q_proj": 1024}}))
    first = two.adapters[0]
    large = AdapterStore((type(first)(id=first.id, folder=tmp_path, manifest=first.manifest),))
    with pytest.raises(AdapterRefused, match="rank 1024"):
        completed(SETTINGS, large, [])


def test_our_plugin_joins_the_list_of_the_operator() -> None:
    environment = {"VLLM_PLUGINS": "mine,other"}
    set_environment(environment, [])
    assert environment["VLLM_PLUGINS"] == "mine,other,rheostat"


def test_without_a_list_every_plugin_that_adds_no_routes_stays() -> None:
    environment: dict[str, str] = {}
    set_environment(environment, [])
    assert "lora_filesystem_resolver" in environment["VLLM_PLUGINS"].split(",")
    assert environment["VLLM_PLUGINS"].endswith(",rheostat")


def test_adapters_reach_the_plugin_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    set_environment(environment, [tmp_path / "a", tmp_path / "b"])
    monkeypatch.setenv("RHEOSTAT_ADAPTERS", environment["RHEOSTAT_ADAPTERS"])
    assert Settings().adapters == [tmp_path / "a", tmp_path / "b"]
