"""Adapters: what must not be served is refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rheostat_server.adapters import AdapterRefused, load_adapter, load_adapters
from rheostat_server.contract.digest import adapter_digest
from rheostat_server.contract.manifest import Manifest, write_manifest
from rheostat_server.errors import UnknownAdapter
from tests.server.recording import DIGEST

OTHER_BASE = "sha256:" + "f" * 64


@pytest.fixture
def folder(tmp_path: Path, manifest: Manifest) -> Path:
    return make_folder(tmp_path / "adapter", manifest)


def make_folder(folder: Path, manifest: Manifest, config: dict[str, object] | None = None) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config or {"peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    write_manifest(manifest.model_copy(update={"weights_digest": adapter_digest(folder)}), folder)
    return folder


def test_a_whole_adapter_is_addressed_by_content(folder: Path) -> None:
    adapter = load_adapter(folder, base_digest=DIGEST)
    assert adapter.id == f"demo-control@{adapter_digest(folder)[7:19]}"


def test_an_adapter_of_another_base_model_is_refused(folder: Path) -> None:
    with pytest.raises(AdapterRefused, match="made for the base model 'demo'"):
        load_adapter(folder, base_digest=OTHER_BASE)


def test_a_replaced_weight_file_is_refused(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(AdapterRefused, match="changed after the manifest was written"):
        load_adapter(folder, base_digest=DIGEST)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "control.json"])
def test_a_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AdapterRefused, match=name):
        load_adapter(folder, base_digest=DIGEST)


@pytest.mark.parametrize("name", ["adapter_model.bin", "extra.pt", "EXTRA.PT", "sub/optimizer.pkl"])
def test_pickled_weights_are_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(AdapterRefused, match="pickled"):
        load_adapter(folder, base_digest=DIGEST)


def test_a_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"weights")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").symlink_to(outside)
    with pytest.raises(AdapterRefused, match="leads out"):
        load_adapter(folder, base_digest=DIGEST)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../weights", "~/weights"])
@pytest.mark.parametrize(
    "within", [lambda path: path, lambda path: {"cache_file": path}, lambda path: [{"files": [path]}]]
)
def test_a_configured_path_that_leaves_the_folder_is_refused(
    tmp_path: Path, manifest: Manifest, path: str, within: Callable[[str], object]
) -> None:
    folder = make_folder(tmp_path / "leaving", manifest, {"peft_type": "LORA", "init_lora_weights": within(path)})
    with pytest.raises(AdapterRefused, match="outside the adapter's folder"):
        load_adapter(folder, base_digest=DIGEST)


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_a_configuration_that_peft_did_not_write_is_refused(folder: Path, manifest: Manifest, text: str) -> None:
    (folder / "adapter_config.json").write_text(text, encoding="latin-1")
    write_manifest(manifest.model_copy(update={"weights_digest": adapter_digest(folder)}), folder)
    with pytest.raises(AdapterRefused, match=r"adapter_config\.json"):
        load_adapter(folder, base_digest=DIGEST)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2}', "\xff"])
def test_a_manifest_of_another_schema_is_refused(folder: Path, text: str) -> None:
    (folder / "control.json").write_text(text, encoding="latin-1")
    with pytest.raises(AdapterRefused, match="not a valid manifest"):
        load_adapter(folder, base_digest=DIGEST)


def test_two_adapters_of_one_name_are_refused(folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    twin = make_folder(tmp_path / "twin", manifest)
    with pytest.raises(AdapterRefused, match="names must differ"):
        load_adapters([folder, twin], base_digest=DIGEST)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match="not a folder"):
        load_adapter(tmp_path / "nowhere", base_digest=DIGEST)


def test_the_first_adapter_is_the_default_and_an_unknown_one_is_named(folder: Path) -> None:
    store = load_adapters([folder], base_digest=None)
    assert store.adapters[0] == store.find("demo-control")
    with pytest.raises(UnknownAdapter, match="'nobody'"):
        store.find("nobody")
