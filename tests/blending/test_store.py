"""Blends: what must not be served is refused with the reason; what is served at a point."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rheostat_server.adapters import AdapterRefused
from rheostat_server.blending.store import Blend, BlendStore, load_blend, load_blends
from rheostat_server.contract.control_text import DEFAULT_TEMPLATE
from rheostat_server.contract.dials import Dials
from rheostat_server.engines.plain_lora import NotPlainLora, read_plain_lora
from rheostat_server.errors import UnknownAdapter
from tests.blends import BLEND_NAME, SAFETY, TinyBlend, write_tiny_blend
from tests.tiny import TinyAdapter

CONFIG = "experts/safe/adapter_config.json"
WEIGHTS = "experts/safe/adapter_model.safetensors"


@pytest.fixture
def folder(tiny_blend: TinyBlend, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return copytree(tiny_blend.folder, tmp_path / "blend")


@pytest.fixture
def base_digest(tiny_blend: TinyBlend) -> str:
    return tiny_blend.manifest.base_model.digest


def redigested(folder: Path, base: Path) -> Path:
    """The blend with the digests of what its components are now."""
    write_tiny_blend(folder, base=base, weights={"safe": SAFETY})
    return folder


def set_in_config(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_text(json.dumps(config | settings))


def test_a_whole_blend_is_addressed_by_its_manifest(folder: Path, base_digest: str) -> None:
    blend = load_blend(folder, base_digest=base_digest)
    assert blend.id.startswith(f"{BLEND_NAME}@")
    (folder / "blend.json").write_text((folder / "blend.json").read_text().replace("Apache-2.0", "MIT"))
    assert load_blend(folder, base_digest=base_digest).id != blend.id


def test_a_component_that_was_changed_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b" ")
    with pytest.raises(AdapterRefused, match="changed after the manifest was written"):
        load_blend(folder, base_digest=None)


def test_a_blend_of_another_base_model_is_refused(folder: Path) -> None:
    with pytest.raises(AdapterRefused, match="made for the base model 'tiny'"):
        load_blend(folder, base_digest="sha256:" + "f" * 64)


@pytest.mark.parametrize(
    "setting",
    [
        {"bias": "all"},
        {"use_dora": True},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["experts.down_proj"]},
        {"layer_replication": [[0, 1]]},
        {"peft_type": "IA3"},
        {"r": 9},
    ],
    ids=str,
)
def test_a_component_that_is_no_plain_lora_is_refused(folder: Path, tiny_model: Path, setting: dict[str, Any]) -> None:
    set_in_config(folder, **setting)
    with pytest.raises(AdapterRefused, match=f"component 'safe' cannot be blended.*{next(iter(setting))[:1]}"):
        load_blend(redigested(folder, tiny_model), base_digest=None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"r": None}, "r is None; it should be a number"),
        ({"r": "4"}, "r is '4'; it should be a number"),
        ({"lora_alpha": None}, "lora_alpha is None; it should be a number"),
        ({"lora_alpha": True}, "lora_alpha is True"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"rank_pattern": {"(": 4}}, "rank_pattern has '(', which is no regular expression"),
        ({"rank_pattern": ["v_proj"]}, "rank_pattern is ['v_proj']; it should be an object"),
        ({"alpha_pattern": {"v_proj": "8"}}, "alpha_pattern.v_proj is '8'"),
        ({"rank_pattern": {"v_proj": 0}}, "has the rank 4, and adapter_config.json says 0"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_configuration_of_other_values_is_told_by_file_field_and_value(
    folder: Path, tiny_model: Path, content: dict[str, Any], said: str
) -> None:
    set_in_config(folder, **content)
    with pytest.raises(AdapterRefused, match=r"component 'safe' cannot be blended: .*adapter_config\.json") as refused:
        load_blend(redigested(folder, tiny_model), base_digest=None)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["[]", "7", "{", "[" * 100_000], ids=lambda text: text[:3])
def test_a_configuration_that_is_none_is_refused_by_whoever_reads_it(folder: Path, tiny_model: Path, text: str) -> None:
    (folder / CONFIG).write_text(text)
    with pytest.raises(AdapterRefused, match=r"adapter_config\.json"):
        load_blend(redigested(folder, tiny_model), base_digest=None)
    with pytest.raises(NotPlainLora, match=r"adapter_config\.json"):
        read_plain_lora((folder / CONFIG).parent)


def of_no_rank(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        tensors[name] = tensor[:0] if "lora_A" in name else tensor[:, :0].contiguous()


def without_an_up(tensors: dict[str, torch.Tensor]) -> None:
    tensors.pop(next(name for name in tensors if "lora_B" in name))


def with_a_bias(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.lm_head.bias"] = torch.zeros(3)


def in_whole_numbers(tensors: dict[str, torch.Tensor]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].to(torch.int8)


@pytest.mark.parametrize("spoil", [without_an_up, with_a_bias, in_whole_numbers, of_no_rank])
def test_a_component_with_other_tensors_is_refused(
    folder: Path, tiny_model: Path, spoil: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    tensors = load_file(folder / WEIGHTS)
    spoil(tensors)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(AdapterRefused, match="cannot be blended"):
        load_blend(redigested(folder, tiny_model), base_digest=None)


@pytest.mark.parametrize("content", [b"", b"weights", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_a_file_that_is_none_of_safetensors_is_refused(folder: Path, tiny_model: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(AdapterRefused, match="not a safetensors file"):
        load_blend(redigested(folder, tiny_model), base_digest=None)


@pytest.mark.parametrize("name", ["adapter_model.bin", "experts/safe/optimizer.pt"])
def test_pickled_weights_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(AdapterRefused, match="pickled"):
        load_blend(folder, base_digest=None)


def test_a_component_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "experts/safe").rename(tmp_path / "elsewhere")
    (folder / "experts/safe").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterRefused, match="leads out"):
        load_blend(folder, base_digest=None)


def test_a_folder_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(AdapterRefused, match="--blend takes a folder with"):
        load_blend(folder / "none", base_digest=None)
    (folder / "experts/helpful").rename(folder / "experts/other")
    with pytest.raises(AdapterRefused, match="it should hold the component 'helpful'"):
        load_blend(folder, base_digest=None)


def test_a_missing_component_is_refused_by_name(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(AdapterRefused, match=r"adapter_model\.safetensors is missing"):
        load_blend(folder, base_digest=None)


def test_a_component_that_obeys_control_text_is_asked_with_it(
    folder: Path, tiny_model: Path, tiny_adapters: list[TinyAdapter]
) -> None:
    """Or whoever writes it into a message would set its dials."""
    copytree(tiny_adapters[0].folder, folder / "experts/told")
    weights = {"safe": SAFETY, "told": 1}
    write_tiny_blend(folder, base=tiny_model, weights=weights)
    with pytest.raises(AdapterRefused, match="'told' was trained with"):
        load_blend(folder, base_digest=None)
    write_tiny_blend(folder, base=tiny_model, weights=weights, control_text={"template": DEFAULT_TEMPLATE})
    text = load_blend(folder, base_digest=None).control_text
    assert text is not None
    assert text.template == DEFAULT_TEMPLATE


def test_a_control_text_that_no_component_knows_is_refused(folder: Path, tiny_model: Path) -> None:
    write_tiny_blend(folder, base=tiny_model, weights={"safe": SAFETY}, control_text={"template": DEFAULT_TEMPLATE})
    with pytest.raises(AdapterRefused, match="no component"):
        load_blend(folder, base_digest=None)


def test_components_whose_layers_differ_in_size_are_refused_by_layer_and_component(
    folder: Path, tiny_model: Path
) -> None:
    path = folder / "experts/helpful/adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "layers.1.self_attn.v_proj.lora_A" in name)
    size = tensors[name].shape[1]
    tensors[name] = tensors[name].repeat(1, 2)
    save_file(tensors, path)
    write_tiny_blend(folder, base=tiny_model, weights={"safe": SAFETY, "helpful": 1})
    layer = "model.layers.1.self_attn.v_proj"
    said = rf"blend\.json: the component 'helpful' changes {layer} of {2 * size} inputs and .* 'safe' one of {size} "
    with pytest.raises(AdapterRefused, match=said):
        load_blend(folder, base_digest=None)


def test_names_of_blends_and_adapters_differ(folder: Path) -> None:
    with pytest.raises(AdapterRefused, match="names of blends and adapters must differ"):
        load_blends([folder], base_digest=None, taken=[BLEND_NAME])
    with pytest.raises(AdapterRefused, match="is taken"):
        load_blends([folder, folder], base_digest=None)


def test_the_first_blend_is_found_by_name_and_id_and_an_unknown_one_is_named(folder: Path) -> None:
    store = load_blends([folder], base_digest=None)
    assert store.find(BLEND_NAME) is store.find(store.ids[0]) is store.blends[0]
    with pytest.raises(UnknownAdapter, match="Unknown blend 'nobody'"):
        store.find("nobody")
    assert not BlendStore().has(BLEND_NAME)


@pytest.fixture
def blend(tiny_blend: TinyBlend) -> Blend:
    return load_blend(tiny_blend.folder, base_digest=None)


def test_a_grid_of_five_has_25_points(blend: Blend) -> None:
    assert len({point.address for point in blend.points()}) == 25


def test_one_point_is_tried_that_has_all_components(blend: Blend) -> None:
    [tried] = blend.trials()
    assert [part.folder.name for part in tried.parts] == ["safe", "helpful"]


def test_points_are_tried_until_every_component_was_in_one(folder: Path, tiny_model: Path) -> None:
    """No point has both of two components that one dial trades for each other."""
    steps = {"safe": [[0, 0], [0.5, 0], [0.75, 1]], "helpful": [[0, 1], [0.25, 1], [0.5, 0]]}
    weights = {name: {"dial": "safety", "points": points} for name, points in steps.items()}
    write_tiny_blend(folder, base=tiny_model, weights=weights)
    blend = load_blend(folder, base_digest=None)
    tried = BlendStore((blend,)).trials()
    assert sorted(part.folder.name for parts in tried.values() for part in parts) == ["helpful", "safe"]
    write_tiny_blend(folder, base=tiny_model, weights={"safe": {"dial": "safety", "points": [[0, 0], [1, 0]]}})
    assert load_blend(folder, base_digest=None).trials() == []


def test_a_component_whose_weight_is_0_is_left_out(blend: Blend) -> None:
    point = blend.at(Dials(safety=1, helpfulness=0), {})
    assert point.weights == {"safe": 1.0, "helpful": 0.0}
    assert [(part.folder.name, part.weight) for part in point.parts] == [("safe", 1.0)]


def test_a_point_within_limits_is_made_for_the_limit_where_no_level_lies_within(blend: Blend) -> None:
    point = blend.at(Dials(safety=0.9, helpfulness=1), {"safety": (0.85, 0.95)})
    assert point.dials.safety == 0.95
    assert point.weights["safe"] == pytest.approx(0.1 + 0.9 * 0.95)
