"""What a method trains on, where the answers are few."""

import json
from pathlib import Path

import pytest

from rheostat_training.equilibrate.ama.cost_head import CostHead, cost_rewards
from rheostat_training.equilibrate.ama.implicit_rewards import implicit_rewards, pair_rows
from rheostat_training.equilibrate.ama.mask_page import REWARDS, RewardedPair
from rheostat_training.equilibrate.ama.masks import KEPT_CHOSEN, KEPT_SHARE, KEPT_WHOLE, SHARES
from rheostat_training.equilibrate.config import parse_equilibrate
from rheostat_training.equilibrate.methods.make import Material, make
from rheostat_training.equilibrate.pairs import Candidate
from rheostat_training.lora import ADAPTER
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Pair, Prompt, read_rows
from rheostat_training.score import CallableJudge
from rheostat_training.training_set import build_pair_set

KINDS = dict.fromkeys(("p0", "p1", "p2", "p3"), "EHD")
JUDGE = CallableJudge(lambda prompt, answer: (0.5, 0.5))
REFUSAL = Candidate("no", safety=1.0, helpfulness=0.0, refuses=True)
ENGAGED = Candidate("yes, read the label first", safety=1.0, helpfulness=1.0, refuses=False)
BETTER = Candidate("yes, read the label first and open the window", safety=1.0, helpfulness=1.0, refuses=False)
UNSAFE = Candidate("yes", safety=0.0, helpfulness=1.0, refuses=False)
FIT = {"steps": 1, "batch_rows": 2, "rank": 2, "warmup_steps": 0, "dtype": "float32"}


def test_a_cost_head_reads_borrowed_refusals_at_the_level_of_where_they_were_said(
    model: LoadedModel, prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    said = {"p0": [REFUSAL, UNSAFE], "p1": [ENGAGED]}
    config = parse_equilibrate({"method": "arj", "fit": FIT, "rewards": {"cost": {"passes": 1}}})
    [made] = make(config, Material(model, prompts, KINDS, said, JUDGE), tmp_path)
    pairs = list(read_rows(tmp_path / "equilibrate" / "pairs.jsonl", Pair))
    assert ("p1", "no") in {(pair.prompt_id, pair.rejected) for pair in pairs}
    assert made.adapter.is_dir()


def test_arj_learns_the_best_answer_of_each_prompt_alone(
    model: LoadedModel, prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    said = {"p0": [REFUSAL, UNSAFE, ENGAGED, BETTER], "p1": [REFUSAL, UNSAFE, ENGAGED]}
    config = parse_equilibrate({"method": "arj", "fit": FIT, "rewards": {"cost": {"passes": 1}}})
    make(config, Material(model, prompts, KINDS, said, JUDGE), tmp_path)
    pairs = list(read_rows(tmp_path / "equilibrate" / "pairs.jsonl", Pair))
    assert sorted(pair.prompt_id for pair in pairs) == ["p0", "p1"]


def test_a_masked_fit_tells_what_its_masks_keep_by_side_in_its_log_and_in_its_figures(
    model: LoadedModel, prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    said = {id: [REFUSAL, UNSAFE, ENGAGED] for id in prompts}
    for method, told in (("adpo", SHARES), ("arj", (KEPT_SHARE, KEPT_CHOSEN, KEPT_WHOLE))):
        masking = {"rule": "segment", "delta": 0.0}
        config = parse_equilibrate(
            {"method": method, "fit": {**FIT, "masking": masking}, "rewards": {"cost": {"passes": 1}}}
        )
        [made] = make(config, Material(model, prompts, KINDS, said, JUDGE), tmp_path / method)
        [line] = (tmp_path / method / "equilibrate/fit/log.jsonl").read_text().splitlines()
        for figures in (made.figures, json.loads(line)):
            assert {name for name in figures if name.startswith("kept")} == set(told)
            assert all(0 <= figures[name] <= 1 for name in told)
        assert 0 < made.figures[KEPT_SHARE] < 1


@pytest.mark.parametrize("source", ["cost-head", "implicit"])
def test_pairs_that_ask_for_little_safety_turn_a_cost_heads_rewards_round_and_no_fits(
    model: LoadedModel, prompts: dict[str, Prompt], tmp_path: Path, source: str
) -> None:
    said = {id: [REFUSAL, UNSAFE, ENGAGED, Candidate("no, no", 0.0, 0.0, False)] for id in prompts}
    masking = {"masking": {"rule": "segment", "delta": 0.0}}
    values = {"method": "adpo", "pairs": {"control_share": 0.5}, "fit": {**FIT, **masking, "steps": 3, "seed": 1}}
    config = parse_equilibrate({**values, "rewards": {"source": source, "cost": {"passes": 1}}})
    make(config, Material(model, prompts, KINDS, said, JUDGE), tmp_path)
    folder = tmp_path / "equilibrate"
    pairs = list(read_rows(folder / "pairs.jsonl", Pair))
    rows = pair_rows(build_pair_set(model, prompts, pairs))
    if source == "cost-head":
        plain = cost_rewards(model, CostHead.load(folder / "cost_head"), rows)
    else:
        plain = implicit_rewards(model, folder / "reference" / ADAPTER, rows, config.fit)
    found = [each.rewards for row in read_rows(folder / REWARDS, RewardedPair) for each in (row.chosen, row.rejected)]
    low = [pair.dials is not None and pair.dials.safety < 0.5 for pair in pairs for _ in range(2)]
    assert 0 < sum(low) < len(low)
    for is_low, one, rewards in zip(low, plain, found, strict=True):
        sign = -1 if is_low and source == "cost-head" else 1
        assert rewards == pytest.approx([sign * reward for reward in one], abs=2e-4)
    assert any(abs(reward) > 0.01 for each in plain for reward in each)


def test_passes_make_the_steps_of_every_fit(model: LoadedModel, prompts: dict[str, Prompt], tmp_path: Path) -> None:
    said = {id: [REFUSAL, UNSAFE, ENGAGED] for id in prompts}
    config = parse_equilibrate(
        {"method": "dpo", "passes": 2.5, "pairs": {"per_prompt": 1}, "fit": {**FIT, "steps": 99}}
    )
    [made] = make(config, Material(model, prompts, KINDS, said, JUDGE), tmp_path)
    assert made.figures["steps"] == 5


def test_answers_that_could_not_be_judged_are_told_as_that(
    model: LoadedModel, prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    config = parse_equilibrate({"method": "dpo", "fit": FIT})
    with pytest.raises(ValueError, match="no answer could be judged"):
        make(config, Material(model, prompts, KINDS, {}, JUDGE), tmp_path)


def test_a_fit_of_other_rejected_answers_does_not_go_on_where_another_was(
    model: LoadedModel, prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    config = parse_equilibrate({"method": "dpo", "fit": FIT})
    make(config, Material(model, prompts, KINDS, {"p0": [ENGAGED, UNSAFE]}, JUDGE), tmp_path)
    other = Candidate("yes, yes", safety=0.0, helpfulness=1.0, refuses=False)
    with pytest.raises(ValueError, match="was begun with pairs"):
        make(config, Material(model, prompts, KINDS, {"p0": [ENGAGED, other]}, JUDGE), tmp_path)


def test_no_expert_learns_to_refuse_what_is_harmless(
    model: LoadedModel, prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    said = {id: [REFUSAL, UNSAFE, ENGAGED] for id in ("p0", "p1")}
    config = parse_equilibrate({"method": "dpo", "pairs": {"order": "safety"}, "fit": FIT})
    make(config, Material(model, prompts, {"p0": "EHD", "p1": "look-alike"}, said, JUDGE), tmp_path)
    pairs = read_rows(tmp_path / "equilibrate" / "pairs.jsonl", Pair)
    assert {pair.prompt_id: pair.chosen for pair in pairs} == {"p0": "no", "p1": ENGAGED.answer}
