"""The reinforce stage with masks: which tokens move the weights, what is logged, resume, and what is refused."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rheostat_training.conditioning import prompt_text, token_ids
from rheostat_training.config import BadConfig, parse_config
from rheostat_training.equilibrate.ama.appo import KeptTokens, Masker, TokenRewards, of_head
from rheostat_training.equilibrate.ama.cost_head import CostHead, asked_for
from rheostat_training.equilibrate.ama.masks import Masking
from rheostat_training.evaluate import grid
from rheostat_training.models import LoadedModel, load_base
from rheostat_training.progress import Progress
from rheostat_training.reinforce import ReinforcePlan, ReinforceReport, reinforce
from rheostat_training.resume import AnotherRun
from rheostat_training.training_set import TrainingRow
from rheostat_training.trl_trainers import Algorithm, StepLog
from tests.training.reinforced import PLAN, PROMPTS, YesJudge, fit_start, teach
from tests.training.tiny_fit import tiny_llama

TOKENWISE = Masking(rule="segment", delta=0.0)
both = pytest.mark.parametrize("algorithm", ["rloo", "grpo"])


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base that says yes and no, and the adapter to start from."""
    folder = tmp_path_factory.mktemp("appo")
    torch.set_num_threads(1)
    base = tiny_llama(tiny_model)
    teach(base)
    base.model.save_pretrained(folder / "base")
    base.tokenizer.save_pretrained(folder / "base")
    fit_start(load_base(folder / "base"), folder / "start")
    return folder


@pytest.fixture
def run(trained: Path) -> Callable[..., ReinforceReport]:
    def run(out: Path, plan: ReinforcePlan, values: TokenRewards | None, **more: Any) -> ReinforceReport:
        base = load_base(trained / "base")
        judge = more.pop("judge", YesJudge())
        more = {"report_to": "none", "progress": Progress.silent(), **more}
        return reinforce(base, trained / "start/adapter", PROMPTS, judge, plan, out, token_rewards=values, **more)

    return run


Run = Callable[..., ReinforceReport]


def good(rows: Sequence[TrainingRow], safety: Sequence[float]) -> list[list[float]]:
    """Every token is safe."""
    return [[1.0] * len(row.encoded.answer_ids) for row in rows]


def alternating(rows: Sequence[TrainingRow], safety: Sequence[float]) -> list[list[float]]:
    """Every second token is safe, the others are not; turned round under low safety, as a cost head's."""
    signs = ([(-1.0) ** place for place in range(len(row.encoded.answer_ids))] for row in rows)
    return [list(asked_for(each, level)) for each, level in zip(signs, safety, strict=True)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(out / "adapter/adapter_model.safetensors")
    return found


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def apart(one: Path, other: Path) -> float:
    left, right = weights(one), weights(other)
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@both
def test_the_kept_share_is_logged_and_masks_change_what_is_learnt(
    run: Run, tmp_path: Path, algorithm: Algorithm
) -> None:
    plan = replace(PLAN, algorithm=algorithm, steps=3)
    run(tmp_path / "plain", plan, None)
    masked = replace(plan, masking=TOKENWISE)
    run(tmp_path / "masked", masked, alternating)
    assert apart(tmp_path / "plain", tmp_path / "masked") > 1e-4
    assert "kept_share" not in log_of(tmp_path / "plain")[0]
    shares = [row["kept_share"] for row in log_of(tmp_path / "masked")]
    assert len(shares) == 3
    assert all(0.3 < share < 0.8 for share in shares)


def safety_by_prompt_ids(tokenizer: Any) -> dict[tuple[int, ...], float]:
    asked = [(prompt, dials) for prompt in PROMPTS.values() for dials in grid(PLAN.levels)]
    ids = token_ids(tokenizer, [prompt_text(tokenizer, prompt.messages, dials) for prompt, dials in asked])
    found = {each: dials.safety for each, (_, dials) in zip(ids, asked, strict=True)}
    assert len(found) == len(asked)
    return found


@both
def test_the_values_decide_by_the_sign_of_the_advantage(
    run: Run, trained: Path, tmp_path: Path, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by the dials that each answer was asked under, as its prompt in TRL's batch says them."""
    levels = safety_by_prompt_ids(load_base(trained / "base").tokenizer)
    seen: list[tuple[bool, bool]] = []
    find = Masker.kept

    def kept(self: Masker, batch: Mapping[str, torch.Tensor], step: int, safety: Sequence[float]) -> KeptTokens:
        found = find(self, batch, step, safety)
        for place, counted in enumerate(batch["completion_mask"].bool()):
            asked = batch["prompt_ids"][place][batch["prompt_mask"][place].bool()]
            low = levels[tuple(asked.tolist())] < 0.5
            good = bool(batch["advantages"][place] >= 0)
            mask = found.mask[place][counted].tolist()
            assert mask == [int((token % 2 == 0) == (good != low)) for token in range(len(mask))]
            if mask:
                seen.append((good, low))
        return found

    monkeypatch.setattr(Masker, "kept", kept)
    run(tmp_path, replace(PLAN, algorithm=algorithm, steps=4, masking=TOKENWISE), alternating)
    assert set(seen) == {(True, True), (True, False), (False, True), (False, False)}


def test_grpo_whose_masks_keep_everything_is_grpo(run: Run, tmp_path: Path) -> None:
    plan = replace(PLAN, algorithm="grpo", steps=3)
    run(tmp_path / "plain", plan, None)
    run(tmp_path / "masked", replace(plan, masking=TOKENWISE), good)
    assert apart(tmp_path / "plain", tmp_path / "masked") < 1e-6


@both
def test_a_step_in_parts_is_the_step_as_a_whole(
    run: Run, tmp_path: Path, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a step have unlike shares of kept tokens; their losses are over those of the whole step."""
    norms: list[float] = []
    told = StepLog.on_log

    def listens(self: StepLog, args: Any, state: Any, control: Any, **given: Any) -> None:
        if "grad_norm" in given["logs"]:
            norms.append(given["logs"]["grad_norm"])
        told(self, args, state, control, **given)

    monkeypatch.setattr(StepLog, "on_log", listens)
    plan = replace(PLAN, algorithm=algorithm, steps=1, masking=TOKENWISE, clip=1e9)
    for name, rows in (("whole", 16), ("parts", 4)):
        run(tmp_path / name, replace(plan, batch_rows=rows), alternating)
    shares = [log_of(tmp_path / name)[0]["kept_share"] for name in ("whole", "parts")]
    assert shares[0] == shares[1]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert norms[0] > 0
    assert apart(tmp_path / "whole", tmp_path / "parts") < 1e-4


@both
def test_rloo_and_grpo_learn_under_a_mask(run: Run, tmp_path: Path, algorithm: Algorithm) -> None:
    plan = replace(
        PLAN,
        algorithm=algorithm,
        masking=TOKENWISE,
        steps=25,
        prompts_per_step=8,
        samples=8,
        batch_rows=64,
        learning_rate=2e-3,
        checkpoint_every=40,
    )
    report = run(tmp_path, plan, alternating)
    assert all(0.2 < row["kept_share"] < 0.8 for row in log_of(tmp_path))
    assert report.final_reward > report.first_reward + 0.1


def test_values_of_a_cost_head_are_those_of_the_base_alone(run: Run, trained: Path, tmp_path: Path) -> None:
    head = CostHead(torch.randn(32, generator=torch.Generator().manual_seed(1)), torch.tensor(0.0))
    base, alone = load_base(trained / "base"), load_base(trained / "base")
    seen: list[bool] = []

    def compared(rows: Sequence[TrainingRow], safety: Sequence[float]) -> list[tuple[float, ...]]:
        found, wanted = of_head(base, head)(rows, safety), of_head(alone, head)(rows, safety)
        seen.append(all(one == pytest.approx(other, abs=1e-3) for one, other in zip(found, wanted, strict=True)))
        return [tuple(each) for each in found]

    plan = replace(PLAN, steps=2, masking=TOKENWISE)
    more: dict[str, Any] = {"report_to": "none", "progress": Progress.silent()}
    reinforce(base, trained / "start/adapter", PROMPTS, YesJudge(), plan, tmp_path, token_rewards=compared, **more)
    assert seen == [True, True]


@both
def test_a_run_that_is_stopped_ends_with_the_weights_of_one_that_was_not(
    run: Run, tmp_path: Path, algorithm: Algorithm
) -> None:
    plan = replace(PLAN, algorithm=algorithm, masking=replace(TOKENWISE, rule="random"))
    run(tmp_path / "whole", plan, alternating)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", plan, alternating, judge=YesJudge(leaves_at=5))
    run(tmp_path / "stopped", plan, alternating)
    assert apart(tmp_path / "whole", tmp_path / "stopped") == 0
    shares = [[row["kept_share"] for row in log_of(tmp_path / name)] for name in ("whole", "stopped")]
    assert shares[0] == shares[1]


def test_masks_without_token_rewards_are_refused_before_anything_is_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"masking.rule is 'segment', and there are no token rewards"):
        run(tmp_path / "out", replace(PLAN, masking=TOKENWISE), None)
    assert not (tmp_path / "out").exists()


def test_a_run_without_masks_asks_for_no_values(run: Run, tmp_path: Path) -> None:
    def never(rows: Sequence[TrainingRow], safety: Sequence[float]) -> list[list[float]]:
        raise AssertionError("it was asked")

    run(tmp_path, replace(PLAN, steps=1), never)


def test_a_folder_with_a_run_by_other_values_is_refused(run: Run, tmp_path: Path) -> None:
    plan = replace(PLAN, steps=1, masking=TOKENWISE)
    run(tmp_path, plan, good, rewards_from="a cost head")
    with pytest.raises(AnotherRun, match="token_rewards"):
        run(tmp_path, plan, good, rewards_from="another")
    with pytest.raises(AnotherRun, match="plan"):
        run(tmp_path, replace(plan, masking=Masking(rule="random")), good, rewards_from="a cost head")


def test_a_training_run_whose_reinforcement_has_masks_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"reinforce.masking.rule is 'segment'"):
        parse_config({"reinforce": {"masking": {"rule": "segment"}}})


def test_the_base_is_as_before(run: Run, trained: Path, tmp_path: Path) -> None:
    base, untouched = load_base(trained / "base"), load_base(trained / "base")
    plan = replace(PLAN, steps=1, masking=TOKENWISE)
    more: dict[str, Any] = {"report_to": "none", "progress": Progress.silent()}
    reinforce(base, trained / "start/adapter", PROMPTS, YesJudge(), plan, tmp_path, token_rewards=good, **more)
    assert base.digest() == untouched.digest()
    assert isinstance(base, LoadedModel)
