"""The exported folder: what the server reads, and nothing that vLLM would refuse."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from rheostat_server.contract.digest import adapter_digest, base_model_digest
from rheostat_server.contract.manifest import read_manifest
from rheostat_training.adapter_check import NotServable
from rheostat_training.evaluate import Trial, evaluate, grid
from rheostat_training.export import ExportFacts, evaluation_rows, export_adapter, merge_adapter
from rheostat_training.models import load_base
from rheostat_training.resume import rows_digest
from tests.tiny import TinyAdapter

LEVELS = {"safety": (0.0, 1.0, 0.5), "helpfulness": (0.0, 0.5, 1.0)}


def facts() -> ExportFacts:
    evaluation = evaluate([Trial("p", dials, dials.safety, dials.helpfulness) for dials in grid()], resamples=5)
    return ExportFacts(
        name="quiet",
        base_name="tiny",
        method="exmate",
        levels={"safety": LEVELS["safety"], "helpfulness": LEVELS["helpfulness"]},
        data_digests={"examples": rows_digest([])},
        evaluation=evaluation_rows(evaluation, mode="adapter", judge="oracle"),
    )


def test_the_folder_holds_the_manifest_that_the_server_reads(
    tmp_path: Path, tiny_model: Path, tiny_adapters: list[TinyAdapter]
) -> None:
    written = export_adapter(tiny_adapters[0].folder, tiny_model, tmp_path / "out", facts())
    manifest = read_manifest(tmp_path / "out")
    assert manifest == written
    assert manifest.base_model.digest == base_model_digest(tiny_model)
    assert manifest.weights_digest == adapter_digest(tmp_path / "out")
    assert manifest.dials["safety"].levels == [0.0, 0.5, 1.0]
    assert manifest.training.software.keys() == {"torch", "transformers", "peft", "rheostat"}
    assert {row.dial for row in manifest.evaluation} == {"safety", "helpfulness"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "control.json",
    }


def test_a_merged_model_says_what_the_base_says_under_the_adapter(
    tmp_path: Path, tiny_model: Path, tiny_adapters: list[TinyAdapter]
) -> None:
    merged = merge_adapter(tiny_model, tiny_adapters[0].folder, tmp_path / "merged")
    adapted = PeftModel.from_pretrained(load_base(tiny_model).model, tiny_adapters[0].folder)
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        wanted, found = (model(ids).logits for model in (adapted, load_base(merged).model))
        alone = load_base(tiny_model).model(ids).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (alone - wanted).abs().max() > 0.1
    assert (
        AutoTokenizer.from_pretrained(merged).chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    )
    assert not list(merged.glob("adapter_*"))


def test_exporting_again_replaces_the_folder(
    tmp_path: Path, tiny_model: Path, tiny_adapters: list[TinyAdapter]
) -> None:
    one, other = (export_adapter(item.folder, tiny_model, tmp_path / "out", facts()) for item in tiny_adapters[:2])
    assert one.id != other.id
    assert read_manifest(tmp_path / "out") == other


def test_an_adapter_that_vllm_would_refuse_is_not_exported(
    tmp_path: Path, tiny_model: Path, tiny_adapters: list[TinyAdapter]
) -> None:
    adapter = shutil.copytree(tiny_adapters[0].folder, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(NotServable, match="use_dora"):
        export_adapter(adapter, tiny_model, tmp_path / "out", facts())
    assert not (tmp_path / "out").exists()


def test_weights_that_are_no_low_rank_pairs_are_not_exported(
    tmp_path: Path, tiny_model: Path, tiny_adapters: list[TinyAdapter]
) -> None:
    adapter = shutil.copytree(tiny_adapters[0].folder, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({**weights, "embed_tokens.weight": torch.zeros(2)}, adapter / "adapter_model.safetensors")
    with pytest.raises(NotServable, match="embed_tokens"):
        export_adapter(adapter, tiny_model, tmp_path / "out", facts())


def test_an_adapter_without_safetensors_is_not_exported(
    tmp_path: Path, tiny_model: Path, tiny_adapters: list[TinyAdapter]
) -> None:
    adapter = shutil.copytree(tiny_adapters[0].folder, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(NotServable, match="safetensors"):
        export_adapter(adapter, tiny_model, tmp_path / "out", facts())
