"""A fit shared by two processes that `accelerate launch` starts: the adapter is that of one process, up to rounding."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rheostat_training.fit import FitPlan
from rheostat_training.fit_plan import LossName
from tests.training.ended import ends_at
from tests.training.launched import launched
from tests.training.tiny_fit import PLAN, tiny_fit

ROOT = Path(__file__).parents[2]
SAME = replace(PLAN, dropout=0.0, batch_rows=5, micro_batch_rows=2, clip=0.5)


def launch(tokenizer: Path, out: Path, plan: FitPlan) -> None:
    launched("tests.training.tiny_fit", tokenizer, out, json.dumps(asdict(plan)), log=out.with_suffix(".log"))


def close(one: Path, other: Path) -> None:
    wanted, reached = (load_file(folder / "adapter/adapter_model.safetensors") for folder in (one, other))
    assert wanted.keys() == reached.keys()
    assert any(value.abs().max() > 0.01 for name, value in wanted.items() if "lora_B" in name)
    torch.testing.assert_close(reached, wanted, rtol=1e-3, atol=1e-5)
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (one, other)]
    assert len(logs[0]) == len(logs[1]) == SAME.steps
    for mine, theirs in zip(*logs, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["exmate", "dpo"])
def test_two_processes_make_the_adapter_of_one(tiny_model: Path, tmp_path: Path, loss: LossName) -> None:
    plan = replace(SAME, loss=loss, anchors=3)
    tiny_fit(tiny_model, tmp_path / "one", plan)
    launch(tiny_model, tmp_path / "two", plan)
    close(tmp_path / "one", tmp_path / "two")
    wanted, reached = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    assert (wanted["steps"], wanted["tokens"]) == (reached["steps"], reached["tokens"])


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_ended(tiny_model: Path, tmp_path: Path) -> None:
    tiny_fit(tiny_model, tmp_path / "whole", SAME)
    with ends_at(5):
        tiny_fit(tiny_model, tmp_path / "ended", SAME)
    launch(tiny_model, tmp_path / "ended", SAME)
    close(tmp_path / "whole", tmp_path / "ended")


def test_the_fsdp_file_has_only_fields_that_accelerate_knows() -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    text = (ROOT / "training/configs/fsdp.yaml").read_text()
    config = ClusterConfig.from_yaml_file(yaml_file=str(ROOT / "training/configs/fsdp.yaml"))
    assert config.fsdp_config == yaml.safe_load(text)["fsdp_config"]
    assert config.distributed_type == "FSDP"
