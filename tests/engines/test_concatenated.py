"""A blend as one file: it is the weighted sum of its parts' changes, and nothing of it is left where it fails."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree
from typing import Any, Final

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rheostat_server.contract.digest import adapter_address, adapter_digest
from rheostat_server.engines import Part
from rheostat_server.engines.blend_files import BlendFiles
from rheostat_server.engines.concatenated import write_concatenated
from rheostat_server.engines.plain_lora import CONFIG, WEIGHTS, NotPlainLora, greatest_rank, read_plain_lora
from rheostat_server.errors import EngineFailed
from tests.blends import build_component
from tests.tiny import LINEAR_LAYERS
from tools.reference_merge import changes_of, logits_of, merged

IDS = [5, 40, 77, 12, 200, 3]
SETTINGS: Final[Sequence[Callable[[str], dict[str, object]]]] = (
    lambda layer: {},
    lambda layer: {"use_rslora": True},
    lambda layer: {"lora_alpha": 3},
    lambda layer: {"layers_to_transform": [1]},
    lambda layer: {"alpha_pattern": {layer: 1}},
    lambda layer: {"rank_pattern": {layer: 7}, "use_rslora": True},
)
"""Of PEFT's configuration, for an adapter that changes such a layer."""


def part(folder: Path, weight: float) -> Part:
    return Part(folder.name, folder, weight)


@pytest.fixture(scope="module")
def pair(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    wide = build_component(folder / "wide", base=tiny_model, seed=1)
    narrow = build_component(folder / "narrow", base=tiny_model, seed=2, rank=2, targets=["v_proj"], use_rslora=True)
    return wide, narrow


def test_it_answers_as_the_reference_merge(tiny_model: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    parts = [part(pair[0], 0.75), part(pair[1], -0.5)]
    write_concatenated(parts, tmp_path / "blend")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    served = logits_of(PeftModel.from_pretrained(base, str(tmp_path / "blend")).eval(), IDS)
    reference = logits_of(merged(tiny_model, parts), IDS)
    assert (served - reference).abs().max() < 1e-4
    plain = logits_of(AutoModelForCausalLM.from_pretrained(tiny_model), IDS)
    assert (plain - reference).abs().max() > 1


def test_the_mean_of_the_matrices_is_another_model(tiny_model: Path, pair: tuple[Path, Path]) -> None:
    """What the concatenation must not be: half of B1 + B2 times half of A1 + A2."""
    one, other = (load_file(folder / WEIGHTS) for folder in (pair[0], pair[0]))
    assert one.keys() == other.keys()
    first = build_component(pair[0].parent / "first", base=tiny_model, seed=5)
    halves = {name: (tensor + load_file(first / WEIGHTS)[name]) / 2 for name, tensor in one.items()}
    layer = "base_model.model.model.layers.0.self_attn.v_proj"
    averaged = 2 * halves[f"{layer}.lora_B.weight"] @ halves[f"{layer}.lora_A.weight"]
    path = "model.layers.0.self_attn.v_proj"
    exact = (changes_of(tiny_model, pair[0])[path] + changes_of(tiny_model, first)[path]) / 2
    assert (averaged - exact).abs().max() > 0.01


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.lists(st.sampled_from(LINEAR_LAYERS), min_size=1, max_size=4, unique=True),
            st.floats(-2, 2, width=16).filter(bool),
            st.sampled_from(SETTINGS),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_the_ranks_layers_and_weights_it_is_the_weighted_sum(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    parts = [
        part(
            build_component(folder / str(n), base=tiny_model, seed=n, rank=rank, targets=targets, **more(targets[0])),
            weight,
        )
        for n, (rank, targets, weight, more) in enumerate(drawn)
    ]
    write_concatenated(parts, folder / "blend")
    wanted: dict[str, torch.Tensor] = {}
    for each in parts:
        for layer, change in changes_of(tiny_model, each.folder).items():
            wanted[layer] = wanted.get(layer, torch.zeros_like(change)) + each.weight * change
    found = changes_of(tiny_model, folder / "blend")
    assert found.keys() == wanted.keys()
    for layer, change in wanted.items():
        torch.testing.assert_close(found[layer], change, rtol=1e-5, atol=1e-5)
    assert set(read_plain_lora(folder / "blend").ranks.values()) == {
        greatest_rank([read_plain_lora(each.folder) for each in parts])
    }


def test_a_layer_has_the_rank_that_any_layer_needs_and_no_more(pair: tuple[Path, Path], tmp_path: Path) -> None:
    write_concatenated([part(pair[0], 1), part(pair[1], 1)], tmp_path / "blend")
    assert set(read_plain_lora(tmp_path / "blend").ranks.values()) == {4 + 2}
    assert set(read_plain_lora(tmp_path / "blend").scalings.values()) == {1.0}


async def test_a_part_that_was_changed_meanwhile_is_not_served(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    files = BlendFiles.within(tmp_path)
    with pytest.raises(EngineFailed, match="cannot be made") as failed:
        await files.made("blend@1", [Part("blend/wide@000000000000", pair[0], 1.0)])
    assert "no longer holds" in failed.value.logged
    assert str(pair[0]) not in failed.value.message
    assert list(files.folder.iterdir()) == []


def test_nothing_half_done_is_left(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = tmp_path / "spoilt"
    other.mkdir()
    (other / CONFIG).write_bytes((pair[1] / CONFIG).read_bytes())
    whole = (pair[1] / WEIGHTS).read_bytes()
    (other / WEIGHTS).write_bytes(whole[:-8])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(NotPlainLora):
        write_concatenated([part(pair[0], 1), part(other, 1)], out / "blend")
    assert list(out.iterdir()) == []


async def test_parts_that_do_not_fit_each_other_are_the_engines_failure(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    """The server checks them at its start; an engine that is told of such parts all the same says which blend."""
    files, other = BlendFiles.within(tmp_path), copytree(pair[1], tmp_path / "other")
    tensors = {name: tensor.repeat(2, 2) for name, tensor in load_file(other / WEIGHTS).items()}
    save_file(tensors, other / WEIGHTS)
    config = json.loads((other / CONFIG).read_bytes())
    (other / CONFIG).write_text(json.dumps({**config, "r": 4}))
    parts = [Part(f"x/{adapter_address(f.name, adapter_digest(f))}", f, 1.0) for f in (pair[0], other)]
    with pytest.raises(EngineFailed, match="the blend blend@1 cannot be made"):
        await files.made("blend@1", parts)
    assert list(files.folder.iterdir()) == []


async def test_what_is_made_while_the_server_ends_leaves_no_folder(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    files = BlendFiles.within(tmp_path)
    files.remove()
    folder = pair[0]
    with pytest.raises(EngineFailed, match="cannot be made"):
        await files.made("blend@1", [Part(f"x/{adapter_address(folder.name, adapter_digest(folder))}", folder, 1.0)])
    assert list(tmp_path.iterdir()) == []


async def test_what_ends_being_made_after_the_server_has_ended_is_removed(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, folder = BlendFiles.within(tmp_path), pair[0]

    def saved_late(tensors: dict[str, torch.Tensor], path: Path, **options: Any) -> None:
        files.remove()
        path.parent.mkdir(parents=True)
        save_file(tensors, path, **options)

    monkeypatch.setattr("rheostat_server.engines.concatenated.save_file", saved_late)
    await files.made("blend@1", [Part(f"x/{adapter_address(folder.name, adapter_digest(folder))}", folder, 1.0)])
    assert list(tmp_path.iterdir()) == []


def test_the_files_go_with_the_process(tmp_path: Path) -> None:
    files = BlendFiles.within(tmp_path, for_others=True)
    assert files.folder.stat().st_mode & 0o777 == 0o755
    assert BlendFiles.within(tmp_path).folder.stat().st_mode & 0o777 == 0o700
    files.remove()
    assert not files.folder.exists()
