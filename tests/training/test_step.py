"""The loss of a step: padding, masks, references, and parts that add up to the whole."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from rheostat_training import length_groups
from rheostat_training.conditioning import Encoded
from rheostat_training.fit_plan import FitPlan, LossName
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Example, Prompt
from rheostat_training.step import part_loss, row_logs, step_loss
from rheostat_training.training_set import StepRows, TrainingRow, build_training_set, steps
from tests.training.conftest import HIGH, row_means
from tests.training.tiny_fit import training_row

PLAN = FitPlan(dtype="float32", alpha=0.3)
PROMPT = (5, 6, 7)
LOSSES: list[LossName] = ["clm", "mate", "exmate", "unlikelihood", "dpo", "rpo", "bfpo", "arj"]

Prompts = dict[str, Prompt]
MakeModel = Callable[[], LoadedModel]


def adapted(base: LoadedModel) -> Any:
    """A model with an adapter that has left its start."""
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    return get_peft_model(base.model, config)


def a_step(base: LoadedModel, prompts: Prompts, examples: list[Example], plan: FitPlan) -> StepRows:
    positives = build_training_set(base, prompts, examples, negative_distance=0)
    drawn: Iterator[StepRows] = steps(
        positives,
        batch_rows=7,
        negatives_per_positive=plan.negatives,
        max_repeats=9,
        seed=1,
        in_pairs=plan.in_pairs,
        anchors=plan.anchors,
        anchor_after=3,
    )
    return next(drawn)


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def test_rows_padded_in_one_batch_have_the_log_probs_they_have_alone(model: LoadedModel, prompts: Prompts) -> None:
    answers = ["no", "yes, read the label first and open the window", "never"]
    rows = [
        training_row(model, prompt, HIGH, answer) for prompt, answer in zip(prompts.values(), answers, strict=False)
    ]
    alone = [row_means(model.model, [row])[0] for row in rows]
    assert row_means(model.model, rows) == pytest.approx(alone, abs=1e-5)


def test_forwards_of_rows_of_like_length_give_what_one_forward_gives(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(length_groups, "FORWARD_TOKENS", 1)
    rows = [TrainingRow(Encoded(PROMPT, tuple(range(8, 8 + length))), length // 3) for length in (60, 5, 30, 61, 4)]
    assert len(length_groups.length_groups([row.encoded.length for row in rows])) == 3
    together, mask = row_logs(model.model, rows, PLAN, one_forward=True)
    apart, same_mask = row_logs(model.model, rows, PLAN)
    assert torch.equal(mask.sum(1), same_mask.sum(1))
    for number in range(len(rows)):
        torch.testing.assert_close(apart[number][same_mask[number]], together[number][mask[number]])


def test_log_probs_count_the_answer_and_its_end_and_nothing_else(model: LoadedModel, prompts: Prompts) -> None:
    encoded = training_row(model, prompts["p0"], HIGH, "read the label").encoded
    assert encoded.answer_ids[-1] == model.tokenizer.eos_token_id
    ids = torch.tensor([[*encoded.prompt_ids, *encoded.answer_ids]])
    logs = model.model(ids).logits.log_softmax(-1)[0]
    start = len(encoded.prompt_ids)
    wanted = [logs[start - 1 + at, id].item() for at, id in enumerate(encoded.answer_ids)]
    reached = row_means(model.model, [TrainingRow(encoded)])
    assert reached == pytest.approx([sum(wanted) / len(wanted)], abs=1e-5)
    masked = row_means(model.model, [TrainingRow(encoded, masked=1)])
    assert masked == pytest.approx([sum(wanted[1:]) / len(wanted[1:])], abs=1e-5)


def test_positives_and_negatives_together_are_the_two_apart(model: LoadedModel) -> None:
    good = TrainingRow(Encoded(PROMPT, (8, 9, 1)))
    bad = TrainingRow(Encoded(PROMPT, (8, 10, 11, 1)), masked=1)
    apart = -row_means(model.model, [good])[0] + PLAN.alpha * math.exp(row_means(model.model, [bad])[0])
    assert step_loss(model.model, StepRows((good,), (bad,)), PLAN).item() == pytest.approx(apart, rel=1e-5)


def test_dpo_compares_the_adapter_with_the_base_under_the_same_prompt(make_model: MakeModel) -> None:
    base, model = make_model().model, adapted(make_model())
    good, bad = TrainingRow(Encoded(PROMPT, (8, 9, 1))), TrainingRow(Encoded(PROMPT, (8, 10, 11, 1)))
    own, reference = ([row_logs(which, [row], PLAN)[0].sum().item() for row in (good, bad)] for which in (model, base))
    margin = (own[0] - reference[0]) - (own[1] - reference[1])
    reached = step_loss(model, StepRows((good,), (bad,)), replace(PLAN, loss="dpo", beta=0.4)).item()
    assert abs(margin) > 0.1
    assert reached == pytest.approx(math.log1p(math.exp(-0.4 * margin)), rel=1e-4)


def test_dpo_leaves_the_adapter_on_and_the_model_in_training(make_model: MakeModel) -> None:
    model = adapted(make_model()).train()
    rows = StepRows((TrainingRow(Encoded(PROMPT, (8, 9))),), (TrainingRow(Encoded(PROMPT, (8, 10))),))
    before = row_means(model, rows.positives)
    step_loss(model, rows, replace(PLAN, loss="dpo"))
    assert row_means(model, rows.positives) == before
    assert model.training


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("parts", [2, 3, 20])
def test_the_parts_of_a_step_add_up_to_the_step(
    make_model: MakeModel, prompts: Prompts, examples: list[Example], loss: LossName, parts: int
) -> None:
    model = adapted(make_model())
    plan = replace(PLAN, loss=loss, anchors=4, negatives_per_positive=1.5)
    whole = a_step(make_model(), prompts, examples, plan)
    wanted = part_loss(model, whole, whole, plan)
    wanted.loss.backward()  # type: ignore[no-untyped-call]
    wanted_gradients = gradients(model)
    reached = [part_loss(model, part, whole, plan) for part in whole.split(parts)]
    for part in reached:
        part.loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(sum(part.loss for part in reached), wanted.loss)
    torch.testing.assert_close(sum(part.negative for part in reached), wanted.negative)
    assert wanted_gradients
    largest = max(float(each.abs().max()) for each in wanted_gradients.values())
    torch.testing.assert_close(gradients(model), wanted_gradients, rtol=1e-4, atol=1e-6 * max(1.0, largest))


def test_the_figure_of_negatives_is_the_mean_of_their_likelihood(make_model: MakeModel) -> None:
    model = adapted(make_model())
    good = TrainingRow(Encoded(PROMPT, (8, 9, 1)))
    bad = [TrainingRow(Encoded(PROMPT, ids)) for ids in ((8, 10, 11, 1), (12, 1))]
    rows = StepRows((good,), tuple(bad))
    wanted = sum(map(math.exp, row_means(model, bad))) / 2
    assert part_loss(model, rows, rows, PLAN).negative.item() == pytest.approx(wanted, rel=1e-5)


def test_pairs_are_of_one_prompt_under_the_same_dials_and_the_rejected_answer_is_whole(
    model: LoadedModel, prompts: Prompts, examples: list[Example]
) -> None:
    rows = a_step(model, prompts, examples, replace(PLAN, loss="dpo"))
    assert len(rows.positives) == len(rows.negatives) > 1
    for chosen, rejected in zip(rows.positives, rows.negatives, strict=True):
        assert chosen.encoded.prompt_ids == rejected.encoded.prompt_ids
        assert chosen.encoded.answer_ids != rejected.encoded.answer_ids
        assert rejected.masked == 0


def test_pairs_of_answers_that_have_no_negative_are_refused(
    model: LoadedModel, prompts: Prompts, examples: list[Example]
) -> None:
    lonely = [example for example in examples if example.dials == HIGH]
    with pytest.raises(ValueError, match="negative_distance"):
        a_step(model, prompts, lonely, replace(PLAN, loss="dpo"))


def test_autocast_is_for_accelerators_unless_it_is_asked_for() -> None:
    assert [FitPlan(dtype=dtype).autocast("cpu") for dtype in ("auto", "float32", "bfloat16")] == [False, False, True]
    assert [FitPlan(dtype=dtype).autocast("cuda") for dtype in ("auto", "float32", "bfloat16")] == [True, False, True]
