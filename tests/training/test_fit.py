"""The fit on a random model: what it learns, what it leaves, and exact resume."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from rheostat_training import fit as stage
from rheostat_training.adapter_check import NotServable, check_folder, check_settings
from rheostat_training.conditioning import Encoded
from rheostat_training.fit import FitPlan, fit
from rheostat_training.fit_plan import LossName
from rheostat_training.models import LoadedModel, load_with_adapter
from rheostat_training.processes import Processes
from rheostat_training.progress import Progress
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import Example, Prompt
from rheostat_training.step import anchor_loss
from rheostat_training.training_set import Anchor, StepRows, TrainingRow, build_training_set
from tests.training.architectures import Architecture
from tests.training.conftest import HIGH, LOW, row_means
from tests.training.tiny_fit import PLAN, training_row

QUIET = Progress.silent()
MakeModel = Callable[[], LoadedModel]
Prompts = dict[str, Prompt]


@pytest.mark.parametrize("loss", ["clm", "mate", "exmate", "unlikelihood", "dpo", "rpo"])
def test_a_fit_makes_the_right_answer_likelier_under_its_dials(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example], loss: LossName
) -> None:
    base = make_model()
    plan = replace(PLAN, loss=loss, rank=8, steps=60, learning_rate=5e-2, dropout=0.0, alpha=0.1)
    fit(base, prompts, examples, plan, tmp_path, progress=QUIET)
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    tuned = load_with_adapter(tmp_path / "base", tmp_path / "adapter")
    low, high = examples[0].answer, examples[1].answer
    asked = [(LOW, low), (LOW, high), (HIGH, low), (HIGH, high)]
    rows = [training_row(base, prompts["p0"], *pair) for pair in asked]
    before, after = row_means(base.model, rows), row_means(tuned.model, rows)
    assert after[0] > before[0] + 1
    assert after[3] > before[3] + 1
    assert after[0] > after[2]
    assert after[3] > after[1]


def test_the_base_is_as_before_after_a_fit(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    base, untouched = make_model(), make_model().model
    fit(base, prompts, examples, replace(PLAN, attention="eager"), tmp_path, progress=QUIET)
    left, before = base.model.state_dict(), untouched.state_dict()
    assert left.keys() == before.keys()
    assert all(torch.equal(left[name], before[name]) for name in before)
    assert not base.model.training
    assert all(parameter.requires_grad for parameter in base.model.parameters())
    assert base.model.config._attn_implementation == untouched.config._attn_implementation


def test_gradient_checkpointing_changes_no_weight_and_is_off_again_afterwards(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers: list[bool] = []
    enable = LlamaForCausalLM.gradient_checkpointing_enable

    def counted(model: LlamaForCausalLM, *given: object) -> None:
        enable(model, *given)
        layers.extend(layer.gradient_checkpointing for layer in model.model.layers)

    monkeypatch.setattr(LlamaForCausalLM, "gradient_checkpointing_enable", counted)
    base = make_model()
    for on, name in ((False, "off"), (True, "on")):
        fit(base, prompts, examples, replace(PLAN, gradient_checkpointing=on), tmp_path / name, progress=QUIET)
    assert layers == [True] * base.model.config.num_hidden_layers
    assert not base.model.is_gradient_checkpointing
    off, on = (load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("off", "on"))
    assert off.keys() == on.keys()
    for name, weights in off.items():
        torch.testing.assert_close(on[name], weights)


def test_a_killed_fit_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(make_model(), prompts, examples, PLAN, tmp_path / "whole", progress=QUIET)
    original = stage._one_step

    def dies(run: Any, rows: Any) -> dict[str, float]:
        if run.state.step == 5:
            raise KeyboardInterrupt
        return original(run, rows)

    monkeypatch.setattr(stage, "_one_step", dies)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), prompts, examples, PLAN, tmp_path / "killed", progress=QUIET)
    monkeypatch.setattr(stage, "_one_step", original)
    fit(make_model(), prompts, examples, PLAN, tmp_path / "killed", progress=QUIET)
    whole, killed = (load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == PLAN.steps


def test_an_anchored_fit_stays_nearer_to_the_base_past_the_heads_of_its_answers(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    plan = replace(PLAN, steps=40, head_steps=40, head_tokens=3, learning_rate=3e-2, dropout=0.0)
    rows = build_training_set(make_model(), prompts, examples, negative_distance=0)
    anchors = [anchor for row in rows if (anchor := row.anchor(3))]
    moved = []
    for name, weight in (("free", 0.0), ("anchored", 1.0)):
        anchored = replace(plan, anchors=4, anchor_weight=weight)
        fit(make_model(), prompts, examples, anchored, tmp_path / name, progress=QUIET)
        tuned = PeftModel.from_pretrained(make_model().model, tmp_path / name / "adapter")
        moved.append(anchor_loss(tuned, anchors, plan, tokens=1).item())
    assert moved[1] < moved[0] / 2


@pytest.mark.parametrize("compares", [{"loss": "dpo"}, {"loss": "clm", "anchors": 4, "head_tokens": 1}])
def test_the_bases_own_dropout_has_no_part_where_adapter_and_base_are_compared(
    tmp_path: Path, tiny_model: Path, prompts: Prompts, examples: list[Example], compares: dict[str, Any]
) -> None:
    plan = replace(PLAN, steps=1, **compares)
    reached = []
    for chance in (0.0, 0.3):
        drops = Architecture("phi", more={"resid_pdrop": chance, "attention_dropout": chance})
        base = drops.build(tiny_model, tmp_path / "base")
        report = fit(base, prompts, examples, plan, tmp_path / str(chance), report_to="none", progress=QUIET)
        reached.append(report.final_loss)
        layer = base.model.model.layers[0]
        assert layer.resid_dropout.p == layer.self_attn.attention_dropout == chance
    assert reached[0] == reached[1]
    if plan.in_pairs:
        assert reached[0] == pytest.approx(math.log(2), rel=1e-5)


def test_an_adapter_that_was_never_trained_has_not_moved_from_the_base(
    make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    rows = build_training_set(make_model(), prompts, examples, negative_distance=0)
    same = [Anchor(row.row, row.row) for row in rows]
    fresh = get_peft_model(make_model().model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    assert anchor_loss(fresh, same, PLAN, tokens=1).item() == pytest.approx(0, abs=1e-6)


def test_a_finished_fit_is_not_run_again(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    """One that was killed between its report and its end leaves no checkpoint for ever."""
    first = fit(make_model(), prompts, examples, PLAN, tmp_path, progress=QUIET)
    (tmp_path / "checkpoint.safetensors").touch()
    assert fit(make_model(), prompts, examples, PLAN, tmp_path, progress=QUIET) == first
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_report_counts_what_can_be_learnt(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    lonely = examples[:-1]
    counts: dict[LossName, int] = {"exmate": len(lonely), "dpo": len(lonely) - 1}
    for loss, learnt in counts.items():
        plan = replace(PLAN, loss=loss, steps=1)
        assert fit(make_model(), prompts, lonely, plan, tmp_path / loss, progress=QUIET).positives == learnt


@pytest.mark.parametrize("loss", ["mate", "exmate", "unlikelihood", "dpo"])
def test_a_loss_of_negatives_is_refused_where_there_are_none(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example], loss: LossName
) -> None:
    alone = [example for example in examples if example.dials == HIGH]
    with pytest.raises(ValueError, match=r"no answer has a negative; .* negative_distance"):
        fit(make_model(), prompts, alone, replace(PLAN, loss=loss), tmp_path / "pushed", progress=QUIET)
    fit(make_model(), prompts, alone, replace(PLAN, alpha=0.0, steps=1), tmp_path / "clm", progress=QUIET)


def test_a_folder_with_another_fit_is_refused(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    fit(make_model(), prompts, examples, PLAN, tmp_path, progress=QUIET)
    with pytest.raises(AnotherRun, match="examples"):
        fit(make_model(), prompts, examples[:4], PLAN, tmp_path, progress=QUIET)
    with pytest.raises(AnotherRun, match="prompts"):
        fit(make_model(), {**prompts, "p0": Prompt.user("p0", "another")}, examples, PLAN, tmp_path, progress=QUIET)
    other = make_model()
    other.tokenizer.chat_template = "Today is Monday." + other.tokenizer.chat_template
    with pytest.raises(AnotherRun, match="tokens"):
        fit(other, prompts, examples, PLAN, tmp_path, progress=QUIET)
    other = make_model()
    with torch.no_grad():
        other.model.model.norm.weight[0] += 0.5
    with pytest.raises(AnotherRun, match="weights"):
        fit(other, prompts, examples, PLAN, tmp_path, progress=QUIET)


def test_the_adapter_is_on_every_linear_layer_and_names_no_path(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    fit(make_model(), prompts, examples, PLAN, tmp_path, base_name="tiny", progress=QUIET)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    wanted = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert config["target_modules"] == sorted(wanted)
    assert config["base_model_name_or_path"] == "tiny"
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    check_folder(tmp_path / "adapter")


def test_the_adapter_is_on_the_layers_that_the_plan_names(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    plan = replace(PLAN, target_modules=("v_proj", "down_proj"))
    fit(make_model(), prompts, examples, plan, tmp_path, progress=QUIET)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "v_proj"]
    wrapped = PeftModel.from_pretrained(make_model().model, tmp_path / "adapter")
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in wrapped.state_dict() if ".lora_" in name}
    assert layers == {"down_proj", "v_proj"}


def test_a_layer_that_the_model_has_not_is_refused_with_those_it_has(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    told = r"names 'fc2'; the linear layers of a model of type 'llama' are down_proj, gate_proj, k_proj"
    with pytest.raises(ValueError, match=told):
        fit(make_model(), prompts, examples, replace(PLAN, target_modules=("fc2",)), tmp_path, progress=QUIET)


def test_the_adapter_file_is_what_was_trained(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    fit(make_model(), prompts, examples, PLAN, tmp_path, progress=QUIET)
    wrapped = PeftModel.from_pretrained(make_model().model, tmp_path / "adapter")
    trained = [value for name, value in wrapped.state_dict().items() if "lora_B" in name]
    assert trained
    assert all(value.abs().sum() > 0 for value in trained)


def test_an_adapter_of_less_strength_is_the_same_one_scaled_down(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    for name, strength in (("whole", 1.0), ("half", 0.5)):
        fit(make_model(), prompts, examples, replace(PLAN, strength=strength), tmp_path / name, progress=QUIET)

    def moved(name: str) -> torch.Tensor:
        wrapped: Any = PeftModel.from_pretrained(make_model().model, tmp_path / name / "adapter")
        delta: torch.Tensor = wrapped.base_model.model.model.layers[0].mlp.down_proj.get_delta_weight("default")
        return delta

    assert moved("whole").abs().max() > 0
    torch.testing.assert_close(moved("half"), moved("whole") / 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("modules_to_save", ["embed_tokens"]),
        ("trainable_token_indices", [3]),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("peft_type", "LOHA"),
        ("use_qalora", True),
        ("kasa_config", {"beta": 1.0}),
    ],
)
def test_settings_that_vllm_does_not_serve_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(NotServable, match=field):
        check_settings({"peft_type": "LORA", field: value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "ppo"},
        {"beta": 0.0},
        {"micro_batch_rows": -1},
        {"alpha": -1.0},
        {"steps": 0},
        {"learning_rate": 0.0},
        {"dtype": "float16"},
        {"target_modules": ()},
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_the_fields_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitPlan(**wrong)  # type: ignore[arg-type]


def test_the_learning_rate_rises_and_then_falls() -> None:
    plan = FitPlan(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [plan.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([number / 10 for number in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.02


def test_a_loss_that_is_not_finite_stops_the_fit(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    broken = make_model()
    with torch.no_grad():
        broken.model.model.norm.weight.fill_(float("nan"))
    told = r"gradient of step 1 is not finite, at a loss of nan; try a lower fit\.learning_rate than 0\.01"
    with pytest.raises(RuntimeError, match=told):
        fit(broken, prompts, examples, PLAN, tmp_path, progress=QUIET)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 8, 16, 47, 48, 100])
@pytest.mark.parametrize("negatives", [0, 5, 16, 32, 96])
def test_no_part_of_a_step_has_more_rows_than_a_forward_may_take(rows: int, negatives: int) -> None:
    row = TrainingRow(Encoded((1,), (2,)))
    step = StepRows((row,) * 32, (row,) * negatives)
    parts = stage._parts(step, replace(PLAN, micro_batch_rows=rows), Processes.open(torch.device("cpu")))
    sizes = [len(part.positives) + len(part.negatives) for part in parts]
    assert sum(sizes) == 32 + negatives
    assert max(sizes) <= max(2, rows)
    if len(parts) > 1:
        fewer = step.split(len(parts) - 1)[0]
        assert len(fewer.positives) + len(fewer.negatives) > rows
