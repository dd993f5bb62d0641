"""The forward and the loss of one training step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor
from torch.nn import functional

from rheostat_training.fit_plan import FitPlan
from rheostat_training.length_groups import length_groups, rounded
from rheostat_training.losses import IN_PAIRS, LOSSES, RowLogs, kl_to_reference, token_log_probs
from rheostat_training.training_set import Anchor, StepRows, TrainingRow


@dataclass(frozen=True, slots=True)
class PartLoss:
    """What one part of a step adds to the step's loss, and to the mean exp(ℓ) of its negatives."""

    loss: Tensor
    negative: Tensor


def part_loss(model: Any, part: StepRows, whole: StepRows, plan: FitPlan, *, one_forward: bool = False) -> PartLoss:
    """The loss of a part; the sum over all parts is that of the step.

    Processes that hold a sharded model together must all call it equally often: hence `one_forward`, and a part
    without rows, which gives 0, calls the model all the same.
    """
    if not part.positives and not part.negatives:
        return _nothing(model, whole, plan)
    positive, negative = _logs(model, part, whole, plan, one_forward=one_forward)
    loss = LOSSES[plan.loss](positive, negative, plan.weight)
    if part.anchors:
        loss = loss + plan.anchor_weight * anchor_loss(model, part.anchors, plan, tokens=_anchored_tokens(whole))
    with torch.no_grad():
        return PartLoss(loss, negative.over_step(negative.means().exp()))


def step_loss(model: Any, rows: StepRows, plan: FitPlan) -> Tensor:
    """The loss of a step that is taken whole."""
    return part_loss(model, rows, rows, plan).loss


def anchor_loss(model: Any, anchors: Sequence[Anchor], plan: FitPlan, *, tokens: int) -> Tensor:
    """How far the model under dials has moved from the base model without control text, past the answers' heads.

    `tokens` is how many the step's anchors have.
    """
    with torch.no_grad(), base_alone(model):
        reference = _answer_logs(model, [anchor.plain for anchor in anchors], plan)
    return kl_to_reference(_answer_logs(model, [anchor.dialled for anchor in anchors], plan), reference, tokens)


def row_logs(
    model: Any, rows: Sequence[TrainingRow], plan: FitPlan, *, one_forward: bool = False
) -> tuple[Tensor, Tensor]:
    """log p(y_t | y_<t, c) of each row's answer and the mask of the tokens that count, [rows, tokens] both.

    Rows of like length share a forward; in `one_forward` all do.
    """
    groups = [[*range(len(rows))]] if one_forward else length_groups([row.encoded.length for row in rows])
    found = []
    for group in groups:
        logits, targets, mask = _answer_logits(model, [rows[number] for number in group], plan)
        found.append((token_log_probs(logits, targets, mask), mask))
    back = torch.tensor([number for group in groups for number in group]).argsort().to(found[0][0].device)
    tokens, masks = zip(*found, strict=True)
    return _under_each_other(tokens)[back], _under_each_other(masks)[back]


def _under_each_other(parts: Sequence[Tensor]) -> Tensor:
    """Rows of several widths as one tensor, filled up with zeros on the right."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, width - part.shape[1])) for part in parts])


def _logs(model: Any, part: StepRows, whole: StepRows, plan: FitPlan, *, one_forward: bool) -> tuple[RowLogs, RowLogs]:
    rows = [*part.positives, *part.negatives]
    tokens, mask = row_logs(model, rows, plan, one_forward=one_forward)
    reference = _reference_sums(model, rows, plan, one_forward=one_forward) if plan.loss in IN_PAIRS else None
    aims = torch.tensor([row.aim for row in rows], device=tokens.device, dtype=tokens.dtype)
    first, rest = slice(len(part.positives)), slice(len(part.positives), None)
    return tuple(  # type: ignore[return-value]
        RowLogs(tokens[which], mask[which], len(every), None if reference is None else reference[which], aims[which])
        for which, every in ((first, whole.positives), (rest, whole.negatives))
    )


def _reference_sums(model: Any, rows: Sequence[TrainingRow], plan: FitPlan, *, one_forward: bool) -> Tensor:
    """Σ_t log π_ref(y_t | y_<t, c), [rows]: the base under the same input, control text included.

    So the margin is zero before the first step whatever the dials, and β holds the model to what the base makes of
    the very prompt that it is asked; a reference without control text would add a constant that differs from dial to
    dial.
    """
    with torch.no_grad(), base_alone(model):
        return row_logs(model, rows, plan, one_forward=one_forward)[0].sum(1)


def _nothing(model: Any, whole: StepRows, plan: FitPlan) -> PartLoss:
    tokens, _ = row_logs(model, whole.positives[:1], plan)
    return PartLoss(tokens.sum() * 0, torch.zeros((), device=tokens.device))


def _anchored_tokens(rows: StepRows) -> int:
    return sum(len(anchor.plain.encoded.answer_ids) - anchor.plain.masked for anchor in rows.anchors)


@contextmanager
def base_alone(model: Any) -> Iterator[None]:
    """The base without its adapter, in the mode it is in: on a CPU, bitsandbytes repacks four-bit weights in eval mode,
    and no gradient passes them afterwards."""
    with extract_model_from_parallel(model).disable_adapter():
        yield


def _answer_logs(model: Any, rows: Sequence[TrainingRow], plan: FitPlan) -> Tensor:
    """Log probabilities over the vocabulary at every answer token that counts, [tokens, vocabulary]."""
    logits, _, mask = _answer_logits(model, rows, plan)
    return logits[mask].float().log_softmax(-1)


def _answer_logits(model: Any, rows: Sequence[TrainingRow], plan: FitPlan) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [rows, tokens, vocabulary], target ids and mask [rows, tokens].

    Rows are padded on the right, where a causal model needs no mask, and logits are made only from the first answer
    position of any row on.
    """
    device = next(model.parameters()).device
    width = rounded(max(row.encoded.length for row in rows) - 1) + 1
    kept = min(width - 1, rounded(width - min(len(row.encoded.prompt_ids) for row in rows)))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        encoded = row.encoded
        ids[number, : encoded.length] = torch.tensor((*encoded.prompt_ids, *encoded.answer_ids))
        mask[number, len(encoded.prompt_ids) + row.masked : encoded.length] = True
        if row.kept is not None:
            mask[number, len(encoded.prompt_ids) : encoded.length] &= torch.tensor(row.kept)
    ids, mask = ids.to(device), mask.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=plan.autocast(device.type)):
        logits = model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=kept).logits
    return logits, ids[:, -kept:], mask[:, -kept:]
