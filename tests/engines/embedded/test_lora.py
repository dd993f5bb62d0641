"""Adapters: which are served, and which are refused when the engine starts."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.engines.embedded.lora import AdapterUnusable
from rheostat_server.engines.plain_lora import CONFIG, WEIGHTS
from tests.engines.embedded.asking import SHORT, Reference, text_of
from tests.tiny import TinyAdapter


def changed(adapter: TinyAdapter, folder: Path, **settings: Any) -> Path:
    """A copy of an adapter with other settings in its PEFT configuration."""
    copytree(adapter.folder, folder, dirs_exist_ok=True)
    config = json.loads((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_text(json.dumps(config | settings))
    return folder


@pytest.mark.parametrize(
    "setting",
    [
        {"bias": "all"},
        {"use_dora": True},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
        {"trainable_token_indices": [1]},
        {"target_modules": ["q_proj"]},
        {"r": 8},
        {"of_the_future": 1},
        {"peft_type": "IA3"},
    ],
    ids=str,
)
def test_an_adapter_that_is_no_plain_lora_of_this_model_is_refused(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tmp_path: Path, setting: dict[str, Any]
) -> None:
    with pytest.raises(AdapterUnusable):
        EmbeddedEngine.load(
            tiny_model, served_name="tiny", adapters={"a@1": changed(tiny_adapters[0], tmp_path, **setting)}
        )


def test_an_adapter_that_lacks_weights_is_refused(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tmp_path: Path
) -> None:
    folder = changed(tiny_adapters[0], tmp_path)
    weights = load_file(folder / WEIGHTS)
    weights.pop(next(iter(weights)))
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(AdapterUnusable, match="missing"):
        EmbeddedEngine.load(tiny_model, served_name="tiny", adapters={"a@1": folder})


def test_pickled_adapter_weights_are_never_read(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tmp_path: Path
) -> None:
    folder = changed(tiny_adapters[0], tmp_path)
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(AdapterUnusable, match=WEIGHTS):
        EmbeddedEngine.load(tiny_model, served_name="tiny", adapters={"a@1": folder})


async def test_pefts_own_scaling_is_kept(tiny_model: Path, tiny_adapters: list[TinyAdapter], tmp_path: Path) -> None:
    settings = {"use_rslora": True, "alpha_pattern": {"q_proj": 1}}
    folder = changed(tiny_adapters[0], tmp_path, **settings)
    engine = EmbeddedEngine.load(tiny_model, served_name="tiny", adapters={"a@1": folder}, threads=1)
    assert await text_of(engine, model="a@1", temperature=0) == Reference.load(tiny_model, folder).answer(SHORT)
    await engine.close()


async def test_adapters_of_different_layers_and_ranks_share_a_batch(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tmp_path: Path
) -> None:
    narrow = changed(tiny_adapters[0], tmp_path, target_modules=["v_proj"], r=2)
    weights = {name: weight for name, weight in load_file(narrow / WEIGHTS).items() if "v_proj" in name}
    cut = {name: (weight[:2] if "lora_A" in name else weight[:, :2]).contiguous() for name, weight in weights.items()}
    save_file(cut, narrow / WEIGHTS, metadata={"format": "pt"})
    folders = {"narrow@1": narrow, "wide@1": tiny_adapters[1].folder}
    engine = EmbeddedEngine.load(tiny_model, served_name="tiny", adapters=folders, threads=1)
    for id, folder in folders.items():
        assert await text_of(engine, model=id, temperature=0) == Reference.load(tiny_model, folder).answer(SHORT)
    assert await text_of(engine, temperature=0) == Reference.load(tiny_model).answer(SHORT)
    await engine.close()
