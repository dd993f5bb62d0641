"""RLHF for control on a random model: what it learns, what pays nothing, resume, and what it leaves as it was."""

import json
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from rheostat_server.contract.control_text import ControlText
from rheostat_server.contract.dials import Dials
from rheostat_server.scorers import UNJUDGED, Dialogue, Scores
from rheostat_training import reinforce as stage
from rheostat_training.adapter_check import NotServable, check_folder
from rheostat_training.conditioning import prompt_text, token_ids
from rheostat_training.generate import SamplingPlan
from rheostat_training.lora import save_adapter
from rheostat_training.models import LoadedModel, load_base, load_with_adapter
from rheostat_training.progress import Progress
from rheostat_training.reinforce import ReinforcePlan, distance_reward, draw_rows, reinforce, rewards
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import Prompt, Request
from rheostat_training.samplers.local import sample
from rheostat_training.trl_trainers import Algorithm, NothingJudged
from tests.training.conftest import HIGH, LOW
from tests.training.killed import begin, ended
from tests.training.reinforced import NO, PLAN, PROMPTS, YES, YesJudge, fit_start, reinforce_and_die, teach
from tests.training.tracked import scalars

QUIET = Progress.silent()
LONGER: dict[str, Any] = {
    "steps": 40, "prompts_per_step": 8, "samples": 8, "batch_rows": 64, "learning_rate": 1e-3, "checkpoint_every": 40,
}  # fmt: skip
MakeModel = Callable[[], LoadedModel]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the base and the start adapter of all tests here, filled by the first of them."""
    return tmp_path_factory.mktemp("reinforce")


@pytest.fixture
def start(trained: Path, make_model: MakeModel) -> Path:
    """The start adapter; beside it is the base that says yes and no."""
    folder = trained / "base"
    if not folder.exists():
        base = make_model()
        teach(base)
        base.model.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        fit_start(load_base(folder), trained / "start")
    return trained / "start/adapter"


@pytest.fixture
def talker(trained: Path, start: Path) -> Callable[[], LoadedModel]:
    """Loads the base that says yes and no."""
    return lambda: load_base(trained / "base")


def yes_share(trained: Path, adapter: Path, dials: Dials) -> float:
    tuned = load_with_adapter(trained / "base", adapter)
    requests = [Request(prompt.id, prompt.messages, dials) for prompt in PROMPTS.values()]
    said = [row.answer for row in sample(tuned, requests, SamplingPlan(samples=40, max_new_tokens=12))]
    return said.count(YES) / len(said)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return found


def same(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_the_reward_rises_and_the_dial_is_obeyed(
    tmp_path: Path, trained: Path, start: Path, talker: MakeModel, algorithm: Algorithm
) -> None:
    assert 0.2 < yes_share(trained, start, HIGH) < 0.8
    plan = replace(PLAN, algorithm=algorithm, **LONGER)
    report = reinforce(talker(), start, PROMPTS, YesJudge(), plan, tmp_path, progress=QUIET)
    assert report.first_reward < -0.75
    assert report.final_reward > report.first_reward + 0.2
    obeyed = [yes_share(trained, tmp_path / "adapter", dials) for dials in (LOW, HIGH)]
    assert obeyed[1] > obeyed[0] + 0.4
    assert report.answers == 40 * 64
    assert report.unjudged + report.truncated < report.answers / 4


def test_without_an_adapter_a_fresh_one_of_the_plans_rank_is_trained(tmp_path: Path, talker: MakeModel) -> None:
    plan = replace(PLAN, rank=6, steps=2)
    reinforce(talker(), None, PROMPTS, YesJudge(), plan, tmp_path, base_name="tiny", progress=QUIET)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["r"] == 6
    assert config["base_model_name_or_path"] == "tiny"
    moved = [value for name, value in weights(tmp_path / "adapter").items() if "lora_B" in name]
    assert len(moved) == 14
    assert all(value.abs().sum() > 0 for value in moved)


def test_the_model_is_asked_with_control_text_and_the_judge_without(
    tmp_path: Path, start: Path, talker: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    make = stage.rewards

    def spied(*args: Any) -> Callable[..., list[float | None]]:
        reward = make(*args)

        def spy(**columns: Any) -> list[float | None]:
            seen.append(columns)
            return reward(**columns)

        return spy

    monkeypatch.setattr(stage, "rewards", spied)
    judge = YesJudge()
    reinforce(talker(), start, PROMPTS, judge, replace(PLAN, steps=2), tmp_path, progress=QUIET)
    assert len(seen) == 2
    for columns in seen:
        for asked, safety, helpful in zip(columns["prompts"], columns["safety"], columns["helpfulness"], strict=True):
            text = ControlText().render(Dials(safety=safety, helpfulness=helpful))
            assert asked[-1]["content"].endswith(f" {text}")
    known = [prompt.messages for prompt in PROMPTS.values()]
    assert all(dialogue.messages in known for dialogue in judge.asked)


def test_what_is_asked_has_the_ids_of_every_other_stage(model: LoadedModel) -> None:
    for row in draw_rows(PROMPTS, PLAN):
        dials = Dials(safety=row["safety"], helpfulness=row["helpfulness"])
        ours = token_ids(model.tokenizer, [prompt_text(model.tokenizer, PROMPTS[row["prompt_id"]].messages, dials)])
        theirs = model.tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=True)
        assert tuple(theirs["input_ids"]) == ours[0]


def test_prompts_and_settings_of_the_dials_come_equally_often() -> None:
    plan = replace(PLAN, steps=9, prompts_per_step=4, levels=(0.0, 0.5, 1.0))
    rows = draw_rows(PROMPTS, plan)
    assert len(rows) == 36
    assert set(Counter(row["prompt_id"] for row in rows).values()) == {12}
    assert set(Counter((row["safety"], row["helpfulness"]) for row in rows).values()) == {4}
    assert rows == draw_rows(PROMPTS, plan)
    assert rows != draw_rows(PROMPTS, replace(plan, seed=1))


def test_the_reward_is_the_distance_to_the_dials() -> None:
    assert distance_reward(Scores(0.9, 0.2), Dials(safety=1.0, helpfulness=0.5)) == pytest.approx(-0.4)
    assert distance_reward(Scores(0.9, None), HIGH) is None
    assert distance_reward(UNJUDGED, HIGH) is None


def test_an_answer_cut_off_or_unjudged_has_no_reward_and_is_counted(model: LoadedModel) -> None:
    end = model.end_id
    answers: list[list[int]] = [list(ids) for ids in token_ids(model.tokenizer, [YES, NO, YES, "what"])]
    ids = [[*answers[0], end], [*answers[1], end], answers[2], [*answers[3], end], []]
    judge, logged = YesJudge(), Counter[str]()
    reward = rewards(judge, PROMPTS, model.tokenizer, [end])
    paid = reward(
        completion_ids=ids,
        prompt_id=["p0"] * 5,
        safety=[0.5] * 5,
        helpfulness=[1.0] * 5,
        log_metric=lambda name, value: logged.update({name: value}),
        prompts=None,
    )
    assert paid == [0.0, -1.0, None, None, None]
    assert logged == {"answers": 5, "truncated": 2, "unjudged": 1}
    assert len(judge.asked) == 3


class OneOfEach:
    """Judges one answer of each call's groups of four, by the places of the answers that are finished."""

    def judge(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        seen: set[str] = set()
        result = []
        for dialogue in dialogues:
            result.append(UNJUDGED if str(dialogue.messages) in seen else Scores(0.5, 1.0))
            seen.add(str(dialogue.messages))
        return result


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_an_answer_without_a_reward_is_left_out_and_not_paid_nothing(
    tmp_path: Path, start: Path, talker: MakeModel, algorithm: Algorithm, caplog: pytest.LogCaptureFixture
) -> None:
    """One judged answer in a group has nothing to be compared with; a 0 for the others would move the weights."""
    plan = replace(PLAN, algorithm=algorithm, beta=0.0, steps=3, prompts_per_step=1, batch_rows=4)
    with caplog.at_level(logging.DEBUG):
        report = reinforce(talker(), start, PROMPTS, OneOfEach(), plan, tmp_path, progress=QUIET)
    assert report.unjudged + report.truncated >= 9
    assert report.unjudged > 0
    assert same(tmp_path / "adapter", start)
    assert not [record for record in caplog.records if "may I mix" in record.getMessage()]


def test_a_run_without_any_reward_stops(tmp_path: Path, start: Path, talker: MakeModel) -> None:
    class Nobody:
        def judge(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
            return [UNJUDGED for _ in dialogues]

    with pytest.raises(NothingJudged, match="none of 96 answers"):
        reinforce(talker(), start, PROMPTS, Nobody(), PLAN, tmp_path, progress=QUIET)


def test_the_reference_is_the_policy_at_the_start(tmp_path: Path, start: Path, talker: MakeModel) -> None:
    plan = replace(PLAN, beta=0.1, steps=8)
    reinforce(talker(), start, PROMPTS, YesJudge(), plan, tmp_path, progress=QUIET)
    spans = [row["kl"] for row in log_of(tmp_path)]
    assert spans[0] == pytest.approx(0, abs=1e-4)
    assert max(spans) > 1e-3


def test_the_base_is_as_before(tmp_path: Path, start: Path, talker: MakeModel) -> None:
    base, untouched = talker(), talker()
    plan = replace(PLAN, steps=2, attention="eager", dtype="bfloat16")
    reinforce(base, start, PROMPTS, YesJudge(), plan, tmp_path, progress=QUIET)
    left, before = base.model.state_dict(), untouched.model.state_dict()
    assert left.keys() == before.keys()
    assert all(torch.equal(left[name], before[name]) for name in before)
    assert base.model.config.to_dict() == untouched.model.config.to_dict()
    assert base.model.generation_config.to_dict() == untouched.model.generation_config.to_dict()
    assert "forward" not in vars(base.model)
    assert not base.model.training
    assert all(parameter.requires_grad for parameter in base.model.parameters())


def test_the_adapter_is_what_vllm_serves_and_nothing_else_is_left(
    tmp_path: Path, start: Path, talker: MakeModel
) -> None:
    reinforce(talker(), start, PROMPTS, YesJudge(), replace(PLAN, steps=2), tmp_path, progress=QUIET)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter",
        "inputs.json",
        "log.jsonl",
        "report.json",
        "tracking",
    }
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    check_folder(tmp_path / "adapter")
    assert weights(tmp_path / "adapter").keys() == weights(start).keys()
    assert not same(tmp_path / "adapter", start)


def test_an_adapter_that_vllm_would_not_serve_is_refused_before_anything_is_run(
    tmp_path: Path, start: Path, model: LoadedModel
) -> None:
    config = json.loads((start / "adapter_config.json").read_text())
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong/adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(NotServable, match="use_dora"):
        reinforce(model, tmp_path / "wrong", PROMPTS, YesJudge(), PLAN, tmp_path / "out", progress=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_fresh_adapter_that_vllm_would_not_serve_is_refused(tmp_path: Path, model: LoadedModel) -> None:
    class StableLmForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
        """One of those that vLLM serves without adapters, by its name."""

    base = LoadedModel(StableLmForCausalLM(model.model.config), model.tokenizer)
    with pytest.raises(NotServable, match="StableLmForCausalLM; vLLM serves no adapter"):
        reinforce(base, None, PROMPTS, YesJudge(), PLAN, tmp_path, progress=QUIET)


def without_times(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
@pytest.mark.parametrize(("step", "place"), [(4, "step"), (4, "checkpoint")])
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    processes: ForkServerContext,
    tmp_path: Path,
    trained: Path,
    start: Path,
    talker: MakeModel,
    algorithm: Algorithm,
    step: int,
    place: str,
) -> None:
    plan = replace(PLAN, algorithm=algorithm)
    whole = reinforce(talker(), start, PROMPTS, YesJudge(), plan, tmp_path / "whole", progress=QUIET)
    killed = begin(processes, reinforce_and_die, trained / "base", start, tmp_path / "killed", step, place, algorithm)
    assert ended(killed) == -signal.SIGKILL
    kept = sorted(path.name for path in (tmp_path / "killed").glob("checkpoint-*"))
    assert kept == (["checkpoint-2"] if place == "step" else ["checkpoint-2", "checkpoint-4"])
    judge = YesJudge()
    resumed = reinforce(talker(), start, PROMPTS, judge, plan, tmp_path / "killed", progress=QUIET)
    assert judge.calls == PLAN.steps - 2
    assert same(tmp_path / "killed/adapter", tmp_path / "whole/adapter")
    assert without_times(log_of(tmp_path / "killed")) == without_times(log_of(tmp_path / "whole"))
    assert replace(resumed, seconds=0) == replace(whole, seconds=0)


def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path: Path, start: Path, talker: MakeModel) -> None:
    reinforce(talker(), start, PROMPTS, YesJudge(), PLAN, tmp_path / "whole", progress=QUIET)
    with pytest.raises(KeyboardInterrupt):
        reinforce(talker(), start, PROMPTS, YesJudge(leaves_at=5), PLAN, tmp_path / "stopped", progress=QUIET)
    judge = YesJudge()
    reinforce(talker(), start, PROMPTS, judge, PLAN, tmp_path / "stopped", progress=QUIET)
    assert judge.calls == 2
    assert same(tmp_path / "stopped/adapter", tmp_path / "whole/adapter")


def test_a_run_that_was_stopped_when_all_steps_were_done_only_saves(
    tmp_path: Path, start: Path, talker: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, steps=2)
    whole = reinforce(talker(), start, PROMPTS, YesJudge(), plan, tmp_path / "whole", progress=QUIET)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "save_adapter", dies)
    with pytest.raises(KeyboardInterrupt):
        reinforce(talker(), start, PROMPTS, YesJudge(), plan, tmp_path / "stopped", progress=QUIET)
    monkeypatch.setattr(stage, "save_adapter", save_adapter)
    judge = YesJudge()
    resumed = reinforce(talker(), start, PROMPTS, judge, plan, tmp_path / "stopped", progress=QUIET)
    assert judge.calls == 0
    assert same(tmp_path / "stopped/adapter", tmp_path / "whole/adapter")
    assert replace(resumed, seconds=0) == replace(whole, seconds=0)


def test_a_finished_run_is_not_run_again_and_a_folder_with_another_is_refused(
    tmp_path: Path, start: Path, talker: MakeModel
) -> None:
    plan, judge = replace(PLAN, steps=1), YesJudge()
    first = reinforce(talker(), start, PROMPTS, judge, plan, tmp_path, progress=QUIET)
    (tmp_path / "checkpoint-1").mkdir()
    assert reinforce(talker(), start, PROMPTS, judge, plan, tmp_path, progress=QUIET) == first
    assert judge.calls == 1
    assert not list(tmp_path.glob("checkpoint-*"))

    def refused(what: str, **other: Any) -> None:
        given = {"adapter": start, "prompts": PROMPTS, "plan": plan, "judge_name": "judge", **other}
        adapter, prompts, asked, name = given.values()
        with pytest.raises(AnotherRun, match=what):
            reinforce(talker(), adapter, prompts, judge, asked, tmp_path, judge_name=name, progress=QUIET)

    refused("adapter", adapter=None)
    refused("prompts", prompts={"p0": Prompt.user("p0", "another")})
    refused("plan", plan=replace(plan, beta=0.5))
    refused("judge", judge_name="another")


def test_nobody_is_told_of_a_run(
    tmp_path: Path, start: Path, talker: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.delenv("CI", raising=False)
    module = pytest.importorskip("trl.trainer.base_trainer")
    monkeypatch.setattr(module, "send_telemetry", lambda **_: told.append(not constants.HF_HUB_DISABLE_TELEMETRY))
    reinforce(talker(), start, PROMPTS, YesJudge(), replace(PLAN, steps=1), tmp_path, progress=QUIET)
    assert told == [False]
    assert constants.HF_HUB_DISABLE_TELEMETRY is False


def test_a_tracker_is_told_every_step_once_also_by_a_run_that_was_cut_off(
    tmp_path: Path, start: Path, talker: MakeModel
) -> None:
    plan = replace(PLAN, steps=3, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        reinforce(talker(), start, PROMPTS, YesJudge(leaves_at=3), plan, tmp_path, progress=QUIET)
    reinforce(talker(), start, PROMPTS, YesJudge(), plan, tmp_path, progress=QUIET)
    found = scalars(tmp_path)
    assert found["reward"] == found["kl"] == found["seconds"] == [1, 2, 3]
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("events.out.tfevents.*")} == {"tracking"}


def test_none_tells_no_tracker_and_an_unknown_one_is_refused(tmp_path: Path, start: Path, talker: MakeModel) -> None:
    plan = replace(PLAN, steps=1)
    with pytest.raises(ValueError, match="report_to is 'tensorbord'"):
        reinforce(talker(), start, PROMPTS, YesJudge(), plan, tmp_path, report_to="tensorbord", progress=QUIET)
    reinforce(talker(), start, PROMPTS, YesJudge(), plan, tmp_path, report_to="none", progress=QUIET)
    assert not list(tmp_path.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"algorithm": "ppo"}, "algorithm"),
        ({"steps": 0}, "steps"),
        ({"samples": 1}, "samples"),
        ({"batch_rows": 7}, "batch_rows"),
        ({"temperature": 0.0}, "temperature"),
        ({"beta": -0.1}, "beta"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"levels": ()}, "levels"),
        ({"levels": (0.0, 1.5)}, "levels"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_the_fields_name(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ReinforcePlan(**wrong)


def test_no_prompts_are_refused(tmp_path: Path, model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="prompts is empty"):
        reinforce(model, None, {}, YesJudge(), PLAN, tmp_path, progress=QUIET)
