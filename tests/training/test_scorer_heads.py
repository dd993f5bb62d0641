"""Scorers of several heads: each learns its own level, and a scorer of one is trained as it always was."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    get_linear_schedule_with_warmup,
)

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.reading import dialogue_ids, pad_right
from rheostat_training import scorer_fit
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import AnotherRun
from rheostat_training.scorer_fit import ScorerFamily, ScorerPlan, ScorerRow, ScorerShape, fit_scorer
from tests.training.test_scorers import PLAN, QUESTION, rows_of_two_kinds

QUIET = Progress.silent()
HEADS = ("opening", "closing")


def rows_of_two_levels(count: int = 400) -> list[ScorerRow]:
    """The first words tell one level and the last word the other, independently."""
    chance = random.Random(1)
    rows = []
    for _ in range(count):
        opening, closing = chance.choice((0.1, 0.9)), chance.choice((0.2, 0.8))
        words = " ".join(chance.choices(["small", "garden", "morning", "label"], k=3))
        answer = f"{'yes it is' if opening > 0.5 else 'no never'} {words} {'warm' if closing > 0.5 else 'cold'}"
        rows.append(ScorerRow(QUESTION, answer, (opening, closing)))
    return rows


@torch.inference_mode()
def levels(folder: Path, tokenizer: Any, answers: list[str]) -> list[list[float]]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids, mask = pad_right(dialogue_ids(tokenizer, [Dialogue(QUESTION, each) for each in answers], max_length=64), 0)
    found: list[list[float]] = torch.sigmoid(model(input_ids=ids, attention_mask=mask).logits).tolist()
    return found


@pytest.mark.parametrize("family", ["bert", "llama", "modernbert"])
def test_each_head_learns_its_own_level_and_is_named_in_an_ordinary_model(
    tmp_path: Path, model: LoadedModel, family: ScorerFamily
) -> None:
    shape = ScorerShape(family=family, hidden=32, layers=1, heads=2, max_length=64)
    plan = ScorerPlan(shape=shape, epochs=8, batch_rows=16, learning_rate=5e-3)
    report = fit_scorer(rows_of_two_levels(), model.tokenizer, plan, tmp_path, heads=HEADS, progress=QUIET)
    assert [*report.heads] == [*HEADS]
    for head in report.heads.values():
        assert head.mae < 0.1
        assert head.pearson > 0.9
    assert report.mae == pytest.approx((report.heads["opening"].mae + report.heads["closing"].mae) / 2)
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config
    assert config.id2label == {0: "opening", 1: "closing"}
    assert (config.num_labels, config.problem_type) == (2, "multi_label_classification")
    [[high, low], [low_too, high_too]] = levels(
        tmp_path / "model", model.tokenizer, ["yes it is small garden label cold", "no never small garden label warm"]
    )
    assert max(low, low_too) < 0.4 < 0.6 < min(high, high_too)


def test_a_scorer_of_one_level_is_the_plain_fit_of_its_one_logit(tmp_path: Path, model: LoadedModel) -> None:
    rows, plan = rows_of_two_kinds(120), PLAN
    report = fit_scorer(rows, model.tokenizer, plan, tmp_path, progress=QUIET)
    fitted = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    plain = plainly_fitted(rows, model.tokenizer, plan)
    assert all(torch.equal(weight, plain[name]) for name, weight in fitted.state_dict().items())
    assert report.heads == {}
    assert (fitted.config.num_labels, fitted.config.problem_type) == (1, None)
    assert [*json.loads((tmp_path / "inputs.json").read_text())] == ["plan", "rows", "stage", "tokenizer"]


def plainly_fitted(rows: list[ScorerRow], tokenizer: Any, plan: ScorerPlan) -> dict[str, torch.Tensor]:
    """The weights of a scorer of one level, by a loop without checkpoints, heads or reports."""
    ids = dialogue_ids(
        tokenizer, [Dialogue(row.messages, row.answer) for row in rows], max_length=plan.shape.max_length
    )
    order = random.Random(plan.seed).sample([*zip(ids, [row.level for row in rows], strict=True)], len(rows))
    kept = order[round(len(rows) * plan.held_out_share) :]
    torch.manual_seed(plan.seed)
    scorer = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=128, max_position_embeddings=64, num_labels=1, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    batches = [batch for epoch in range(plan.epochs) for batch in epoch_of(kept, plan, epoch)]
    optimiser = torch.optim.AdamW(scorer.parameters(), lr=plan.learning_rate, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimiser, round(plan.warmup_share * len(batches)), len(batches))
    scorer.train()
    for step, batch in enumerate(batches):
        torch.manual_seed(plan.seed * 1_000_003 + step)
        tokens, mask = pad_right([ids for ids, _ in batch], tokenizer.pad_token_id)
        logits = scorer(input_ids=tokens, attention_mask=mask).logits[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, torch.tensor([level for _, level in batch]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    weights: dict[str, torch.Tensor] = scorer.state_dict()
    return weights


def epoch_of(rows: list[Any], plan: ScorerPlan, epoch: int) -> list[list[Any]]:
    """Batches of like length, in any order; the rows are few enough to be sorted all together."""
    assert len(rows) <= plan.batch_rows * scorer_fit.BATCHES_SORTED_TOGETHER
    chance = random.Random(f"{plan.seed} epoch {epoch}")
    near = sorted(chance.sample(rows, len(rows)), key=lambda row: len(row[0]))
    batches = [near[at : at + plan.batch_rows] for at in range(0, len(near), plan.batch_rows)]
    chance.shuffle(batches)
    return batches


def test_a_training_of_two_heads_that_was_cut_off_ends_with_the_same_weights(
    tmp_path: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ScorerPlan(PLAN.shape, epochs=2, batch_rows=16, learning_rate=5e-3, checkpoint_every=3)
    whole, cut_off = tmp_path / "whole", tmp_path / "cut off"
    fit_scorer(rows_of_two_levels(100), model.tokenizer, plan, whole, heads=HEADS, progress=QUIET)
    step = scorer_fit._step
    taken: list[float] = []

    def until_the_eighth(*arguments: Any) -> float:
        if len(taken) == 7:
            raise KeyboardInterrupt
        taken.append(step(*arguments))
        return taken[-1]

    monkeypatch.setattr(scorer_fit, "_step", until_the_eighth)
    with pytest.raises(KeyboardInterrupt):
        fit_scorer(rows_of_two_levels(100), model.tokenizer, plan, cut_off, heads=HEADS, progress=QUIET)
    monkeypatch.undo()
    report = fit_scorer(rows_of_two_levels(100), model.tokenizer, plan, cut_off, heads=HEADS, progress=QUIET)
    for name in ("model/model.safetensors", "model/config.json"):
        assert (cut_off / name).read_bytes() == (whole / name).read_bytes()
    assert fit_scorer(rows_of_two_levels(100), model.tokenizer, plan, cut_off, heads=HEADS, progress=QUIET) == report


def test_levels_and_heads_that_do_not_fit_are_refused(tmp_path: Path, model: LoadedModel) -> None:
    two, one, tokenizer = rows_of_two_levels(40), rows_of_two_kinds(40), model.tokenizer
    with pytest.raises(ValueError, match=r"row 0 has level 0\.\d; it needs a level for each of opening, closing"):
        fit_scorer(one, tokenizer, PLAN, tmp_path, heads=HEADS, progress=QUIET)
    with pytest.raises(ValueError, match=r"row 0 has level \(.*\); it needs one number, since no heads are named"):
        fit_scorer(two, tokenizer, PLAN, tmp_path, progress=QUIET)
    with pytest.raises(ValueError, match=r"row 0 has level \(\); it needs one number"):
        fit_scorer([ScorerRow(QUESTION, "yes", ())], tokenizer, PLAN, tmp_path, progress=QUIET)
    beyond = ScorerRow(QUESTION, "yes", (0.5, -0.1))
    with pytest.raises(ValueError, match=r"row 40 has level -0\.1"):
        fit_scorer([*two, beyond], tokenizer, PLAN, tmp_path, heads=HEADS, progress=QUIET)
    with pytest.raises(ValueError, match="heads are same, same; each needs a name of its own"):
        fit_scorer(two, tokenizer, PLAN, tmp_path, heads=("same", "same"), progress=QUIET)
    assert not [*tmp_path.iterdir()]


def test_a_folder_begun_with_other_heads_is_refused(tmp_path: Path, model: LoadedModel) -> None:
    fit_scorer(rows_of_two_levels(40), model.tokenizer, PLAN, tmp_path, heads=HEADS, progress=QUIET)
    with pytest.raises(AnotherRun, match="heads"):
        fit_scorer(rows_of_two_levels(40), model.tokenizer, PLAN, tmp_path, heads=HEADS[::-1], progress=QUIET)
