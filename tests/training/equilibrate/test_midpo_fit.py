"""A router's fit on a random model: what moves and what does not, resume, the loader, and the gates' means."""

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from rheostat_training import checkpoint
from rheostat_training.equilibrate.methods.midpo import Experts, RouterPlan, put_router, router_loss
from rheostat_training.equilibrate.methods.midpo_fit import fit_router, load_router, mean_gates, step_logs
from rheostat_training.fit import fit_on
from rheostat_training.generate import SamplingPlan
from rheostat_training.lora import ADAPTER
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import Request
from rheostat_training.samplers.local import sample
from rheostat_training.training_set import StepRows
from tests.training.equilibrate.routed import FIT, MOMENTS, PLAN, pairs, random_expert, route, route_and_die
from tests.training.killed import begin, ended
from tests.training.tiny_fit import tiny_llama, tiny_prompts

MakeModel = Callable[[], LoadedModel]
QUIET = Progress.silent()


@pytest.fixture(scope="module")
def experts(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Experts:
    folder = tmp_path_factory.mktemp("experts")
    return Experts(*(random_expert(tiny_llama(tiny_model), folder / name, seed) for seed, name in enumerate("sh", 1)))


@pytest.fixture(scope="module")
def whole(tiny_model: Path, experts: Experts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit that nothing ended."""
    out = tmp_path_factory.mktemp("router")
    route(tiny_model, experts, out)
    return out


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_gates_move_and_nothing_else_does(model: LoadedModel, experts: Experts, tmp_path: Path) -> None:
    before, files = model.digest(), [(experts.safety / name).read_bytes() for name in ("adapter_model.safetensors",)]
    report = fit_router(model, experts, pairs(model), PLAN, tmp_path, report_to="none", progress=QUIET)
    assert model.digest() == before
    assert [(experts.safety / name).read_bytes() for name in ("adapter_model.safetensors",)] == files
    assert all(weight.requires_grad for weight in model.model.parameters())
    saved = load_file(tmp_path / "router.safetensors")
    assert len(saved) == 4
    assert all(bool(weight.abs().sum() > 0) for weight in saved.values())
    assert (report.steps, report.pairs) == (9, 4)
    assert 0 < report.safety_gate < 1
    assert 0 < report.helpfulness_gate < 1


def test_the_terms_pull_the_safety_gate_shut_and_the_other_open(
    tiny_model: Path, experts: Experts, tmp_path: Path
) -> None:
    strong = replace(PLAN, gate_weight=50.0, steps=25)
    report = route(tiny_model, experts, tmp_path, plan=strong)
    assert report.safety_gate < 0.3
    assert report.helpfulness_gate > 0.7


def test_without_the_terms_the_margin_of_the_pairs_grows(tiny_model: Path, experts: Experts, tmp_path: Path) -> None:
    route(tiny_model, experts, tmp_path, plan=replace(PLAN, gate_weight=0.0, steps=25, batch_rows=4))
    losses = [row["loss"] for row in log_of(tmp_path)]
    assert losses[-1] < losses[0] - 0.05


@torch.no_grad()
def test_a_steps_loss_is_that_of_a_loop_over_its_answers(make_model: MakeModel, experts: Experts) -> None:
    base, alone = make_model(), make_model()
    positives = pairs(base)
    router = put_router(base.model, experts)
    with torch.no_grad():
        for number, weight in enumerate(router.weights().values()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    rows = StepRows(tuple(item.row for item in positives), tuple(item.negatives[0] for item in positives))
    plan = RouterPlan(beta=0.3)
    positive, negative, terms = step_logs(base.model, router, rows, plan)
    found = float(router_loss(positive, negative, plan, terms))
    opened: list[torch.Tensor] = []

    def gain(row: Any) -> float:
        ids = torch.tensor([[*row.encoded.prompt_ids, *row.encoded.answer_ids]])
        first = len(row.encoded.prompt_ids)
        with torch.no_grad():
            own = base.model(input_ids=ids[:, :-1]).logits.log_softmax(-1)
            opened.append(router.recorded()[:, 0])
            plain = alone.model(input_ids=ids[:, :-1]).logits.log_softmax(-1)
        return sum(float((own - plain)[0, place - 1, ids[0, place]]) for place in range(first, ids.shape[1]))

    margins = [gain(item.row) - gain(item.negatives[0]) for item in positives]
    dpo = sum(math.log(1 + math.exp(-0.3 * margin)) for margin in margins) / len(margins)
    gates = torch.cat(opened, dim=1)
    wanted = dpo + float(gates[..., 0].mean()) + float((1 - gates[..., 1]).mean())
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_fit_ends_with_the_bytes_of_an_uninterrupted_one(
    processes: ForkServerContext, tiny_model: Path, experts: Experts, whole: Path, tmp_path: Path, moment: str
) -> None:
    assert ended(begin(processes, route_and_die, tiny_model, experts, tmp_path, moment)) == -signal.SIGKILL
    assert not (tmp_path / "report.json").exists()
    assert (tmp_path / checkpoint.FILE).exists()
    route(tiny_model, experts, tmp_path)
    for name in ("router.safetensors", "router.json", "log.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} >= {"inputs.json", "report.json"}
    assert not (tmp_path / checkpoint.FILE).exists()


def test_a_loaded_router_samples_as_a_model_that_is_read_token_by_token(
    make_model: MakeModel, experts: Experts, whole: Path
) -> None:
    loaded = load_router(make_model(), experts, whole)
    requests = [Request(prompt.id, prompt.messages) for prompt in tiny_prompts().values()]
    said = sample(loaded, requests, SamplingPlan(samples=1, temperature=0.0, max_new_tokens=6))
    again = sample(
        load_router(make_model(), experts, whole), requests, SamplingPlan(samples=1, temperature=0.0, max_new_tokens=6)
    )
    assert said == again
    assert len(said) == 4
    assert loaded.digest() != make_model().digest()
    ids = loaded.tokenizer.apply_chat_template(requests[0].messages, add_generation_prompt=True)["input_ids"]
    wanted: list[int] = []
    for _ in range(6):
        with torch.no_grad():
            wanted.append(int(loaded.model(input_ids=torch.tensor([[*ids, *wanted]])).logits[0, -1].argmax()))
        if wanted[-1] in loaded.end_ids:
            break
    assert said[0].answer == loaded.tokenizer.decode(wanted, skip_special_tokens=True).strip()


def test_a_router_over_other_experts_is_refused(make_model: MakeModel, experts: Experts, whole: Path) -> None:
    with pytest.raises(ValueError, match="router over another safety expert"):
        load_router(make_model(), Experts(experts.helpfulness, experts.safety), whole)


def test_the_mean_gates_are_those_of_a_loop_and_are_told_by_layer(
    make_model: MakeModel, experts: Experts, whole: Path
) -> None:
    base = make_model()
    rows = [item.row for item in pairs(base)]
    router = put_router(base.model, experts)
    with torch.no_grad():
        for name, weight in router.weights().items():
            weight.copy_(load_file(whole / "router.safetensors")[name])
    found = mean_gates(base.model, router, rows, PLAN)
    seen = []
    for row in rows:
        with torch.no_grad():
            base.model(input_ids=torch.tensor([[*row.encoded.prompt_ids, *row.encoded.answer_ids]])[:, :-1])
        seen.append(router.recorded()[:, 0])
    means = torch.cat(seen, dim=1).mean(1)
    assert found.safety == pytest.approx(float(means[:, 0].mean()), rel=1e-3)
    assert found.helpfulness == pytest.approx(float(means[:, 1].mean()), rel=1e-3)
    for (a, g), (name, told) in zip(means.tolist(), found.by_layer.items(), strict=True):
        assert told == pytest.approx((a, g), rel=1e-3), name
    facts = json.loads((whole / "router.json").read_text())
    assert facts["mean_gates"]["safety"] == found.safety
    assert json.loads((whole / "report.json").read_text())["helpfulness_gate"] == found.helpfulness


def test_the_blend_at_the_mean_gates_is_the_router_where_gates_are_the_same_for_all_tokens(
    make_model: MakeModel, experts: Experts
) -> None:
    base = make_model()
    router = put_router(base.model, experts)
    with torch.no_grad():
        for layer in router.layers.values():
            layer.gates.bias.copy_(torch.tensor([-1.0, 2.0]))
    gates = mean_gates(base.model, router, [item.row for item in pairs(base)], PLAN)
    blended = make_model().model
    for folder, weight in ((experts.safety, gates.safety), (experts.helpfulness, gates.helpfulness)):
        adapted: Any = PeftModel.from_pretrained(blended, folder)
        for module in adapted.modules():
            if isinstance(module, LoraLayer):
                module.scaling["default"] *= weight
        blended = adapted.merge_and_unload()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            base.model(input_ids=ids).logits, blended(input_ids=ids).logits, rtol=1e-3, atol=1e-3
        )


def test_experts_come_from_fits_of_their_own(make_model: MakeModel, tmp_path: Path) -> None:
    """The whole way: two experts by the paper's loss on down projections, then the router over both."""
    plan = replace(FIT, steps=2, warmup_steps=0, learning_rate=1e-2)
    for name in ("safety", "helpfulness"):
        base = make_model()
        positives = [replace(item, row=replace(item.row, aim=0.5)) for item in pairs(base)]
        fit_on(base, positives, plan, tmp_path / name, {"order": name}, report_to="none", progress=QUIET)
    config = json.loads((tmp_path / "safety/adapter/adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj"]
    found = Experts(tmp_path / "safety" / ADAPTER, tmp_path / "helpfulness" / ADAPTER)
    base = make_model()
    report = fit_router(
        base, found, pairs(base), replace(PLAN, steps=2), tmp_path / "router", report_to="none", progress=QUIET
    )
    assert math.isfinite(report.final_loss)


def test_a_finished_fit_is_not_run_again_and_a_folder_of_another_is_refused(
    tiny_model: Path, experts: Experts, whole: Path
) -> None:
    log = (whole / "log.jsonl").stat().st_mtime_ns
    assert route(tiny_model, experts, whole).steps == 9
    assert (whole / "log.jsonl").stat().st_mtime_ns == log
    with pytest.raises(AnotherRun, match="plan"):
        route(tiny_model, experts, whole, plan=replace(PLAN, beta=0.2))
    with pytest.raises(AnotherRun, match="expert"):
        route(tiny_model, Experts(experts.helpfulness, experts.safety), whole)


def test_a_calibration_set_of_its_own_is_what_the_means_are_over(
    make_model: MakeModel, experts: Experts, tmp_path: Path
) -> None:
    base = make_model()
    positives = pairs(base)
    reports = [
        fit_router(
            base, experts, positives, PLAN, tmp_path / str(number), calibration=rows, report_to="none", progress=QUIET
        )
        for number, rows in enumerate(([positives[0].row], [positives[3].row]))
    ]
    assert reports[0].safety_gate != reports[1].safety_gate
    with pytest.raises(ValueError, match="calibration is empty"):
        fit_router(base, experts, positives, PLAN, tmp_path / "none", calibration=[], report_to="none", progress=QUIET)
