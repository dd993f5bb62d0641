"""A fit shared by two processes of one launch: the adapter is that of one process, up to rounding."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rheostat_training.crew import Crew
from rheostat_training.fit import FitPlan
from rheostat_training.fit_plan import LossName
from rheostat_training.processes import Processes, check_launch
from tests.training.ended import ends_at
from tests.training.launched import launched
from tests.training.tiny_fit import PLAN, tiny_fit

ROOT = Path(__file__).parents[2]
SAME = replace(PLAN, dropout=0.0, batch_rows=5, micro_batch_rows=2, clip=0.5)


def launch(tokenizer: Path, out: Path, plan: FitPlan) -> None:
    given = (tokenizer, out, json.dumps(asdict(plan)))
    said = launched("tests.training.tiny_fit", *given, log=out.with_suffix(".log"))
    assert sorted(line for line in said.splitlines() if "of 2" in line) == ["process 0 of 2", "process 1 of 2"]


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


@pytest.mark.slow
def test_two_processes_that_hold_the_model_together_make_the_adapter_of_one(tiny_model: Path, tmp_path: Path) -> None:
    tiny_fit(tiny_model, tmp_path / "one", SAME)
    given = (tiny_model, tmp_path / "two", json.dumps(asdict(SAME)))
    said = launched("tests.training.sharded_fit", *given, log=tmp_path / "log")
    assert said.count("anchors is 2; it must be 0 where the model is sharded") == 2
    close(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("wrong", [{"loss": "dpo"}, {"loss": "rpo"}, {"anchors": 1}])
def test_what_asks_the_base_too_is_refused_where_the_model_is_sharded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SAME, **wrong).check_sharded()
    SAME.check_sharded()


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [("MIXED_PRECISION", "bf16", r"fit\.dtype"), ("GRADIENT_ACCUMULATION_STEPS", "4", r"fit\.micro_batch_rows")],
)
def test_a_launch_that_would_change_the_arithmetic_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: str
) -> None:
    check_launch()
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(ValueError, match=f"ACCELERATE_{name} is '{value}'.*{right}"):
        Processes.open(torch.device("cpu"))
    with pytest.raises(ValueError, match=f"ACCELERATE_{name}"):
        Crew()


def test_the_fsdp_file_has_only_fields_that_accelerate_knows() -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    text = (ROOT / "training/configs/fsdp.yaml").read_text()
    config = ClusterConfig.from_yaml_file(yaml_file=str(ROOT / "training/configs/fsdp.yaml"))
    assert config.fsdp_config == yaml.safe_load(text)["fsdp_config"]
    assert config.distributed_type == "FSDP"
