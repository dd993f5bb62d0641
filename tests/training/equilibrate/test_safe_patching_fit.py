"""A safety patch on a random model: what it does, what it is made of, and that its jailbroken half is never written."""

import inspect
import json
import random
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from rheostat_training.adapter_check import check_folder
from rheostat_training.conditioning import Encoded
from rheostat_training.equilibrate.methods import safe_patching_fit
from rheostat_training.equilibrate.methods.safe_patching import SafePatchPlan
from rheostat_training.equilibrate.methods.safe_patching_fit import fit_safe_patch, unsafe_rows
from rheostat_training.equilibrate.pairs import Candidate
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import ADAPTER, with_lora
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import Pair, Prompt
from rheostat_training.step import row_logs
from rheostat_training.training_set import TrainingRow, build_pair_set
from tests.training.conftest import row_means
from tests.training.equilibrate.patched import MOMENTS, PLAN, harmful, patch, patch_and_die, patch_for_long
from tests.training.killed import begin, ended, kill_when
from tests.training.tiny_fit import tiny_llama

MakeModel = Callable[[], LoadedModel]
QUIET = Progress.silent()
Learnt = dict[str, Any]


@pytest.fixture(scope="module")
def learnt(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """Both patches of a whole run, by name, as this module alone may look at them."""
    found: Learnt = {"out": tmp_path_factory.mktemp("patch")}
    learn = safe_patching_fit._learn

    def spied(run: Any, name: str, *rest: Any) -> Any:
        found[name] = learn(run, name, *rest)
        return found[name]

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(safe_patching_fit, "_learn", spied)
        found["report"] = patch(tiny_model, found["out"])
    return found


def difference(adapter: Path) -> dict[str, Tensor]:
    """What an adapter adds to each layer, [out, in], read from its files."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    weights = load_file(adapter / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    return {
        name.removesuffix(".lora_A.weight"): scale * weights[name.replace("lora_A", "lora_B")] @ weights[name]
        for name in weights
        if "lora_A" in name
    }


def test_the_patch_makes_unsafe_answers_less_likely(tiny_model: Path, learnt: Learnt, model: LoadedModel) -> None:
    report = learnt["report"]
    before = -sum(row_means(model.model, harmful())) / 6
    adapted = PeftModel.from_pretrained(model.model, learnt["out"] / ADAPTER).eval()
    after = -sum(row_means(adapted, harmful())) / 6
    assert report.base_loss == pytest.approx(before, rel=1e-3)
    assert report.patched_loss == pytest.approx(after, rel=1e-3)
    assert after > before + 0.05
    assert 0.3 < report.energy_kept < 1
    assert report.least_energy_kept <= report.energy_kept
    assert 0 < report.loosen_energy < 0.5
    assert report.loosen_entries < report.enhance_entries < 0.5 * 0.3 + 0.02
    assert (report.steps, report.answers) == (16, 6)


def loss_with(make_model: MakeModel, added: Mapping[str, Tensor]) -> float:
    """The unsafe answers' mean loss under the base with something added to its layers."""
    model = make_model().model
    modules = dict(model.named_modules())
    with torch.no_grad():
        for layer, more in added.items():
            modules[layer.removeprefix("base_model.model.")].weight += more
    return -sum(row_means(model, harmful())) / 6


def test_the_two_patches_pull_the_answers_to_either_side_within_the_bound(
    learnt: Learnt, make_model: MakeModel
) -> None:
    before = loss_with(make_model, {})
    enhanced, loosened = (
        loss_with(make_model, {layer: b @ a for layer, (b, a) in learnt[name].factors.items()})
        for name in ("enhance", "loosen")
    )
    assert loosened < before - 0.5
    assert before + 0.5 < enhanced < before + PLAN.ascent_margin + 1


def truncated(matrix: Tensor, rank: int) -> Tensor:
    """The nearest matrix of that rank, by the eigenvectors of M Mᵀ."""
    wide = matrix.double()
    columns: Tensor = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -rank:]
    return (columns @ columns.T @ wide).float()


def test_the_saved_patch_is_the_sum_over_the_index_sets_entry_by_entry_at_the_adapters_rank(learnt: Learnt) -> None:
    saved = difference(learnt["out"] / ADAPTER)
    assert len(saved) == 14
    for layer, found in saved.items():
        sides = {}
        for name in ("enhance", "loosen"):
            b, a = learnt[name].factors[layer]
            drawn = torch.rand(found.shape, generator=safe_patching_fit._chance(PLAN.seed, name, layer))
            sides[name] = (b @ a, drawn < PLAN.retention, learnt[name].chosen[layer])
        (ours, kept, chosen), (theirs, their_kept, their_chosen) = sides["enhance"], sides["loosen"]
        wanted = torch.zeros_like(found)
        for row in range(found.shape[0]):
            for column in range(found.shape[1]):
                mine, other = bool(chosen[row, column]), bool(their_chosen[row, column])
                if mine and not other and kept[row, column]:
                    wanted[row, column] = PLAN.alpha * ours[row, column]
                if other and not mine and their_kept[row, column]:
                    wanted[row, column] = PLAN.beta * theirs[row, column]
        whole, wanted = wanted, truncated(wanted, PLAN.export_rank)
        assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.abs().max()) + 1e-6)
        assert not torch.allclose(found, whole, atol=0.1 * float(wanted.abs().max()))


def test_importance_is_the_mean_of_weight_times_gradient_row_by_row(make_model: MakeModel) -> None:
    plan = replace(PLAN, importance_rows=2)
    adapted = with_lora(make_model().model, plan.fit, "base")
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=chance))
    rows = harmful()[:2]
    found = safe_patching_fit._importance(adapted, rows, plan)
    assert not any(weight.requires_grad for name, weight in adapted.named_parameters() if "lora" not in name)
    merged = adapted.merge_and_unload()
    modules = dict(merged.named_modules())
    wanted = {name: torch.zeros_like(score) for name, score in found.items()}
    for row in rows:
        merged.zero_grad()
        for weight in merged.parameters():
            weight.requires_grad_(True)
        logs, mask = row_logs(merged, [row], FitPlan(dtype="float32"))
        (-logs.sum() / mask.sum()).backward()  # type: ignore[no-untyped-call]
        for name in found:
            layer = modules[name.removeprefix("base_model.model.")]
            wanted[name] = wanted[name] + (layer.weight * layer.weight.grad).abs().detach() / 2
    for name, score in found.items():
        assert torch.allclose(score, wanted[name], rtol=1e-3, atol=1e-7)


def test_the_same_seed_makes_the_same_bytes_and_another_does_not(tiny_model: Path, tmp_path: Path) -> None:
    runs = {"one": PLAN, "again": PLAN, "other": replace(PLAN, seed=1)}
    for name, plan in runs.items():
        patch(tiny_model, tmp_path / name, plan)
    one, again, other = ((tmp_path / name / "adapter/adapter_model.safetensors").read_bytes() for name in runs)
    assert one == again
    assert one != other


def tensors_of(learnt: Any) -> Iterable[Tensor]:
    """The jailbroken half in every form: its factors as they are and as they were learnt, and what they make."""
    scale = PLAN.lora_alpha / PLAN.rank
    for b, a in learnt.factors.values():
        yield from (a, b, b / scale, b @ a, PLAN.beta * (b @ a))
    yield from learnt.chosen.values()


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "float32": lambda found: found.float(),
    "float16": lambda found: found.half(),
    "bfloat16": lambda found: found.bfloat16(),
    "its columns": lambda found: found.T,
    "its columns in bfloat16": lambda found: found.T.bfloat16(),
    "its columns in float16": lambda found: found.T.half(),
}
"""How a matrix may be written."""


def bytes_of(found: Tensor) -> bytes:
    return found.contiguous().view(torch.uint8).numpy().tobytes()


LEAST = 8
"""Bytes that are looked for."""


def tells(row: Tensor) -> bool:
    """Whether a row says so much that no file holds it by chance: 8 bytes of three values, or 16 places of a set."""
    if row.dtype == torch.bool:
        return len(row) >= 16 and bool(row.any()) and not bool(row.all())
    return len(bytes_of(row)) >= LEAST and len(set(row.tolist())) > 2


def holds_none_of(out: Path, tensors: Iterable[Tensor]) -> int:
    """Looks for every row and column of every tensor in every file, in each width; how many files there were."""
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    starts = {
        path: {content[place : place + LEAST] for place in range(len(content) - LEAST + 1)}
        for path, content in files.items()
    }
    for tensor in tensors:
        forms = (tensor, tensor.T) if tensor.dtype == torch.bool else [form(tensor) for form in FORMS.values()]
        for row in (row for form in forms for row in form if tells(row)):
            wanted = bytes_of(row)
            for path, content in files.items():
                found = wanted[:LEAST] in starts[path] and wanted in content
                assert not found, f"{path} holds a row of what makes a jailbroken model"
    return len(files)


@pytest.mark.parametrize("form", FORMS)
def test_the_search_finds_what_is_written(learnt: Learnt, tmp_path: Path, form: str) -> None:
    jailbroken = learnt["loosen"]
    for number, factor in enumerate(next(iter(jailbroken.factors.values()))):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "leak").write_bytes(b"before" + bytes_of(FORMS[form](factor)))
        with pytest.raises(AssertionError, match="jailbroken"):
            holds_none_of(tmp_path / str(number), tensors_of(jailbroken))


def test_the_search_finds_an_index_set(learnt: Learnt, tmp_path: Path) -> None:
    chosen = next(iter(learnt["loosen"].chosen.values()))
    for name, found in (("rows", chosen), ("columns", chosen.T)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "leak").write_bytes(bytes_of(found))
        with pytest.raises(AssertionError, match="jailbroken"):
            holds_none_of(tmp_path / name, tensors_of(learnt["loosen"]))


def test_no_file_of_a_run_holds_the_jailbroken_half(learnt: Learnt) -> None:
    assert holds_none_of(learnt["out"], tensors_of(learnt["loosen"])) == 5
    assert {path.name for path in learnt["out"].iterdir()} == {ADAPTER, "inputs.json", "log.jsonl", "report.json"}
    check_folder(learnt["out"] / ADAPTER)


@pytest.mark.parametrize("moment", MOMENTS)
def test_no_file_of_a_killed_run_holds_the_jailbroken_half_and_it_starts_again(
    processes: ForkServerContext, tiny_model: Path, learnt: Learnt, tmp_path: Path, moment: str
) -> None:
    assert ended(begin(processes, patch_and_die, tiny_model, tmp_path, moment)) == -signal.SIGKILL
    assert not (tmp_path / "report.json").exists()
    assert not list(tmp_path.rglob("checkpoint*"))
    assert holds_none_of(tmp_path, tensors_of(learnt["loosen"])) >= 2
    patch(tiny_model, tmp_path)
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / name).read_bytes() == (learnt["out"] / name).read_bytes()
    first, *steps = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert first["cut_off_before"] is True
    assert "starts again from its beginning" in first["note"]
    assert len(steps) == 2 * PLAN.steps


def test_a_run_killed_at_a_random_moment_leaves_log_and_inputs_alone(
    processes: ForkServerContext, tiny_model: Path, learnt: Learnt, tmp_path: Path
) -> None:
    process = begin(processes, patch_for_long, tiny_model, tmp_path)
    log = tmp_path / "log.jsonl"
    lines = 20 + random.Random(2).randrange(200)
    kill_when(process, lambda: log.exists() and log.read_bytes().count(b"\n") > lines)
    assert {path.name for path in tmp_path.rglob("*")} == {"inputs.json", "log.jsonl"}


def test_what_is_saved_cannot_be_split_to_reach_the_jailbroken_half(learnt: Learnt, make_model: MakeModel) -> None:
    """Whoever knew that half, and weighed each rank-one part of the adapter anew to come nearest to it, would have a
    model hardly likelier to give unsafe answers than the base."""
    halves = {layer: b @ a for layer, (b, a) in learnt["loosen"].factors.items()}
    nearest = {}
    for layer, found in difference(learnt["out"] / ADAPTER).items():
        u, _, v = torch.linalg.svd(found, full_matrices=False)
        left, right = u[:, : PLAN.export_rank], v[: PLAN.export_rank]
        nearest[layer] = left @ torch.diag((left.T @ halves[layer] @ right.T).diagonal()) @ right
    before = loss_with(make_model, {})
    gained, whole = before - loss_with(make_model, nearest), before - loss_with(make_model, halves)
    assert sum(float(each.square().sum()) for each in nearest.values()) < 0.1 * sum(
        float(each.square().sum()) for each in halves.values()
    )
    assert gained < 0.25 * whole


def test_no_function_outside_gives_a_patch_out() -> None:
    given = {
        name: inspect.signature(found).return_annotation
        for name, found in vars(safe_patching_fit).items()
        if inspect.isfunction(found) and found.__module__ == safe_patching_fit.__name__ and not name.startswith("_")
    }
    assert given == {
        "fit_safe_patch": safe_patching_fit.SafePatchReport,
        "unsafe_rows": list[TrainingRow],
    }


def test_the_base_is_as_before(model: LoadedModel, tmp_path: Path) -> None:
    before, modules = model.digest(), [name for name, _ in model.model.named_modules()]
    fit_safe_patch(model, harmful(), PLAN, tmp_path, progress=QUIET)
    assert model.digest() == before
    assert [name for name, _ in model.model.named_modules()] == modules
    assert all(weight.requires_grad and weight.grad is None for weight in model.model.parameters())
    assert not model.model.training


def test_a_finished_patch_is_not_made_again_and_a_folder_of_another_is_refused(
    tiny_model: Path, learnt: Learnt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was made again")

    monkeypatch.setattr(safe_patching_fit, "_learn", never)
    assert patch(tiny_model, learnt["out"]) == learnt["report"]
    with pytest.raises(AnotherRun, match="plan"):
        patch(tiny_model, learnt["out"], replace(PLAN, beta=0.1))
    with pytest.raises(AnotherRun, match="harmful"):
        fit_safe_patch(tiny_llama(tiny_model), harmful()[:3], PLAN, learnt["out"], importance_on=harmful())


def test_importance_may_be_taken_on_other_answers(tiny_model: Path, learnt: Learnt, tmp_path: Path) -> None:
    others = [TrainingRow(Encoded((5, 6, 7), (20, 21, 22)))]
    fit_safe_patch(tiny_llama(tiny_model), harmful(), PLAN, tmp_path, importance_on=others, progress=QUIET)
    assert difference(tmp_path / ADAPTER).keys() == difference(learnt["out"] / ADAPTER).keys()
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / name).read_bytes() != (learnt["out"] / name).read_bytes()


def test_no_answers_are_refused_by_name(model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="harmful is empty"):
        fit_safe_patch(model, [], PLAN, tmp_path)
    with pytest.raises(ValueError, match="importance_on is empty"):
        fit_safe_patch(model, harmful(), PLAN, tmp_path, importance_on=[])
    assert not list(tmp_path.iterdir())


def test_what_is_ascended_on_are_the_unsafe_answers_once_each(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    said = [
        Candidate("yes", safety=0.0, helpfulness=1.0, refuses=False),
        Candidate("yes, yes", safety=0.5, helpfulness=0.75, refuses=False),
        Candidate("no", safety=1.0, helpfulness=0.0, refuses=True),
    ]
    candidates = {"p0": [*said, said[0]], "p1": said[1:]}
    yes, twice = (
        build_pair_set(model, prompts, [Pair(id, answer, "")])[0].row.encoded
        for id, answer in (("p0", "yes"), ("p0", "yes, yes"))
    )
    assert [row.encoded for row in unsafe_rows(model, prompts, candidates)] == [yes]
    above = unsafe_rows(model, prompts, candidates, safe_from=0.6)
    assert [row.encoded for row in above][:2] == [yes, twice]
    assert len(above) == 3
    assert unsafe_rows(model, prompts, {"p1": said[2:]}) == []


def test_index_sets_that_leave_nothing_of_the_patch_are_refused_before_it_is_saved(
    tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="the patch changes nothing against unsafe answers"):
        patch(tiny_model, tmp_path, replace(PLAN, steps=2, top_enhance=1.0, top_loosen=1.0))
    assert not (tmp_path / ADAPTER).exists()


def test_a_rank_that_would_hold_both_parts_of_the_patch_as_they_are_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    """The narrowest layers are 16 wide, those of keys and values."""
    with pytest.raises(
        ValueError, match=r"export_rank is 9; it must be 8 at most, half of the narrower side of model.*k_proj"
    ):
        patch(tiny_model, tmp_path, replace(PLAN, export_rank=9))
    assert not list(tmp_path.iterdir())
    report = patch(tiny_model, tmp_path, replace(PLAN, steps=2, export_rank=8))
    assert report.energy_kept < 1


def test_weights_that_make_the_patch_loosen_more_than_protect_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    weak = SafePatchPlan(
        **{
            **{name: getattr(PLAN, name) for name in PLAN.__slots__},
            "ascent_margin": 1e-6,
            "alpha": 0.2,
            "beta": 0.2,
            "steps": 20,
            "top_loosen": 0.3,
        }
    )
    with pytest.raises(ValueError, match="part that loosens"):
        patch(tiny_model, tmp_path, weak)
    assert not (tmp_path / ADAPTER).exists()
