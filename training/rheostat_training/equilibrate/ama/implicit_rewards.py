"""Token rewards that a preference fit holds: how much likelier it makes each token than the model it began from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel

from rheostat_training.fit_plan import FitPlan
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.step import base_alone, row_logs
from rheostat_training.training_set import Positive, TrainingRow


def implicit_rewards(
    base: LoadedModel,
    adapter: Path,
    rows: Sequence[TrainingRow],
    plan: FitPlan,
    *,
    batch_rows: int = 32,
    progress: Progress | None = None,
) -> list[tuple[float, ...]]:
    """r_t = log π(y_t | y_<t, c) − log π_ref(y_t | y_<t, c) of every answer's tokens, π the adapter, π_ref the base.

    β·Σ_t r_t is the implicit reward of DPO (arXiv 2305.18290); that masks are made of its parts is our reconstruction
    of arXiv 2502.11555. They are computed without autocast, whatever the plan's dtype, and rounded to 4 places: of most
    tokens r_t is next to 0, and in bfloat16 its sign would be that of a rounding error. `base` is as before when it
    returns.
    """
    exact = replace(plan, dtype="float32")
    model = PeftModel.from_pretrained(base.model, adapter).eval()
    whole = [replace(row, masked=0, kept=None) for row in rows]
    order = sorted(range(len(whole)), key=lambda number: whole[number].encoded.length)
    found: dict[int, tuple[float, ...]] = {}
    try:
        with torch.no_grad(), (progress or Progress.silent()).task("token rewards", len(rows), unit="answers") as task:
            for start in range(0, len(order), batch_rows):
                numbers = order[start : start + batch_rows]
                batch = [whole[number] for number in numbers]
                own, mask = row_logs(model, batch, exact)
                with base_alone(model):
                    gain = own - row_logs(model, batch, exact)[0]
                for number, values, counts in zip(numbers, gain, mask, strict=True):
                    found[number] = tuple(round(value, 4) for value in values[counts].tolist())
                task.advance(len(numbers))
    finally:
        model.unload()
    return [found[number] for number in range(len(rows))]


def with_rewards(positives: Sequence[Positive], rewards: Sequence[tuple[float, ...]]) -> list[Positive]:
    """The pairs with the rewards of `pair_rows(positives)`, in that order."""
    given = iter(rewards)
    return [
        replace(
            item,
            row=replace(item.row, rewards=next(given)),
            negatives=tuple(replace(row, rewards=next(given)) for row in item.negatives),
        )
        for item in positives
    ]


def pair_rows(positives: Sequence[Positive]) -> list[TrainingRow]:
    """Every answer of the pairs, each chosen one before its rejected."""
    return [row for item in positives for row in (item.row, *item.negatives)]
