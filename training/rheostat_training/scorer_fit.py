"""Training of a scorer: a small sequence-classification model that reads a dialogue and gives a level, or several."""

import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, get_linear_schedule_with_warmup

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.reading import dialogue_ids, pad_right
from rheostat_training import checkpoint
from rheostat_training.checkpoint import FitState, trained_weights
from rheostat_training.progress import Progress
from rheostat_training.publish import with_ordinary_permissions
from rheostat_training.resume import claim, plan_facts, read_value, rows_digest, write_json
from rheostat_training.rows import Messages

ScorerFamily = Literal["bert", "modernbert", "llama"]
BATCHES_SORTED_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class ScorerRow:
    """A dialogue and the level that a scorer should give it, in [0, 1]; a tuple of levels where it has named heads."""

    messages: Messages
    answer: str
    level: float | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScorerShape:
    """The architecture of a scorer that is trained from scratch."""

    family: ScorerFamily = "bert"
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    max_length: int = 256

    def __post_init__(self) -> None:
        if self.family not in get_args(ScorerFamily):
            raise ValueError(f"family is {self.family!r}; known families: {', '.join(get_args(ScorerFamily))}")


@dataclass(frozen=True, slots=True)
class ScorerPlan:
    """Shape and optimiser; the last `held_out_share` of the shuffled rows is never trained on.

    A checkpoint is written after every `checkpoint_every` steps.
    """

    shape: ScorerShape = field(default_factory=ScorerShape)
    epochs: int = 3
    batch_rows: int = 64
    learning_rate: float = 1e-3
    warmup_share: float = 0.06
    held_out_share: float = 0.05
    seed: int = 0
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every is {self.checkpoint_every}; it must be at least 1")
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; it must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class HeadReport:
    """Error and correlation of one head on the rows held out."""

    mae: float
    pearson: float


@dataclass(frozen=True, slots=True)
class ScorerReport:
    """Error and correlation on the rows held out, and how long the training took.

    Where heads are named, `heads` has the figures of each, and `mae` and `pearson` are their means.
    """

    mae: float
    pearson: float
    rows: int
    held_out: int
    seconds: float
    heads: Mapping[str, HeadReport] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Encoded:
    ids: tuple[int, ...]
    level: float | tuple[float, ...]


def fit_scorer(
    rows: Sequence[ScorerRow],
    tokenizer: Any,
    plan: ScorerPlan,
    out: Path,
    *,
    heads: Sequence[str] = (),
    progress: Progress | None = None,
) -> ScorerReport:
    """Trains a scorer into `out/model`, which AutoModelForSequenceClassification loads; level = sigmoid(logit).

    With `heads` it has a logit for each level of a row, and its `id2label` gives them these names.
    A killed run goes on from `out/checkpoint.safetensors` and ends with the same weights.

    Raises:
        ValueError: a level is not in [0, 1], a row has not one a head, or there are too few rows to hold any out.
        AnotherRun: `out` holds a scorer of other rows, another tokenizer, another plan or other heads.
    """
    report = out / "report.json"
    encoded = _encode(rows, tokenizer, plan, heads)
    words = _digest(tokenizer, encoded)
    named = {"heads": [*heads]} if heads else {}
    claim(out, {"stage": "scorer", "plan": plan_facts(plan), "rows": rows_digest(rows), "tokenizer": words, **named})
    if report.exists():
        (out / checkpoint.FILE).unlink(missing_ok=True)  # of a run that was killed right after its report
        found: ScorerReport = read_value(report, ScorerReport)
        return found
    fitted, held_out = _split(encoded, plan)
    torch.manual_seed(plan.seed)
    model = AutoModelForSequenceClassification.from_config(_config(tokenizer, plan.shape, heads))
    state = _train(model, fitted, plan, out, progress or Progress.auto())
    by_head = _by_head(model, held_out, plan.batch_rows)
    _save(model, tokenizer, out / "model")
    result = ScorerReport(
        mae=fmean(head.mae for head in by_head),
        pearson=fmean(head.pearson for head in by_head),
        rows=len(fitted),
        held_out=len(held_out),
        seconds=round(state.seconds, 1),
        heads=dict(zip(heads, by_head, strict=False)),
    )
    write_json(report, plan_facts(result))
    (out / checkpoint.FILE).unlink(missing_ok=True)
    return result


def _encode(rows: Sequence[ScorerRow], tokenizer: Any, plan: ScorerPlan, heads: Sequence[str]) -> list[_Encoded]:
    if len({*heads}) < len(heads):
        raise ValueError(f"heads are {', '.join(heads)}; each needs a name of its own")
    for number, row in enumerate(rows):
        _check_level(number, row.level, heads)
    dialogues = [Dialogue(row.messages, row.answer) for row in rows]
    ids = dialogue_ids(tokenizer, dialogues, max_length=plan.shape.max_length)
    return [_Encoded(tokens, row.level) for tokens, row in zip(ids, rows, strict=True)]


def _check_level(number: int, level: float | tuple[float, ...], heads: Sequence[str]) -> None:
    levels = level if isinstance(level, tuple) else (level,)
    if isinstance(level, tuple) is not bool(heads) or len(levels) != max(1, len(heads)):
        wanted = f"a level for each of {', '.join(heads)}" if heads else "one number, since no heads are named"
        raise ValueError(f"row {number} has level {level}; it needs {wanted}")
    for each in levels:
        if not 0 <= each <= 1:
            raise ValueError(f"row {number} has level {each}; a level is a number from 0 to 1")


def _digest(tokenizer: Any, encoded: Sequence[_Encoded]) -> str:
    """A digest of a tokenizer: of its vocabulary, its chat template, and what it makes of the rows."""
    return rows_digest([*sorted(tokenizer.get_vocab().items()), tokenizer.chat_template, *encoded])


def _split(rows: list[_Encoded], plan: ScorerPlan) -> tuple[list[_Encoded], list[_Encoded]]:
    order = random.Random(plan.seed).sample(rows, len(rows))
    held_out = round(len(rows) * plan.held_out_share)
    if not 2 <= held_out < len(rows):
        raise ValueError(f"{len(rows)} rows at held_out_share {plan.held_out_share} hold out {held_out}; 2 are needed")
    return order[held_out:], order[:held_out]


def _config(tokenizer: Any, shape: ScorerShape, heads: Sequence[str]) -> Any:
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    special: dict[str, dict[str, Any]] = {
        "bert": {"intermediate_size": 4 * shape.hidden},
        "modernbert": {"intermediate_size": 2 * shape.hidden, "classifier_pooling": "mean", "reference_compile": False},
        "llama": {"intermediate_size": 2 * shape.hidden, "num_key_value_heads": shape.heads},
    }
    return AutoConfig.for_model(shape.family, **sizes, **_labels(heads), **special[shape.family])


def _labels(heads: Sequence[str]) -> dict[str, Any]:
    if not heads:
        return {"num_labels": 1}
    return {
        "id2label": dict(enumerate(heads)),
        "label2id": {name: number for number, name in enumerate(heads)},
        "problem_type": "multi_label_classification",
    }


def _train(model: Any, rows: list[_Encoded], plan: ScorerPlan, out: Path, progress: Progress) -> FitState:
    batches = [batch for epoch in range(plan.epochs) for batch in _epoch(rows, plan, epoch)]
    weights = trained_weights(model)
    learning = {"params": list(weights.values()), "initial_lr": plan.learning_rate}
    optimiser = torch.optim.AdamW([learning], lr=plan.learning_rate, weight_decay=0.01)
    state = checkpoint.load(out, (weights, optimiser))
    warmup = round(plan.warmup_share * len(batches))
    schedule = get_linear_schedule_with_warmup(optimiser, warmup, len(batches), last_epoch=state.step - 1)
    model.train()
    with progress.task("fit scorer", len(batches), unit="steps") as task:
        task.skip(state.step)
        for batch in batches[state.step :]:
            started = time.monotonic()
            torch.manual_seed(plan.seed * 1_000_003 + state.step)
            state.loss = _step(model, batch, optimiser)
            schedule.step()
            state.step += 1
            state.seconds += time.monotonic() - started
            task.advance(note=f"loss {state.loss:.3f}")
            if state.step % plan.checkpoint_every == 0:
                checkpoint.save(out, state, checkpoint.snapshot((weights, optimiser)))
    model.eval()
    return state


def _step(model: Any, batch: Sequence[_Encoded], optimiser: torch.optim.Optimizer) -> float:
    loss = functional.binary_cross_entropy_with_logits(_logits(model, batch), _targets(batch))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _epoch(rows: list[_Encoded], plan: ScorerPlan, epoch: int) -> list[list[_Encoded]]:
    chance = random.Random(f"{plan.seed} epoch {epoch}")
    order = chance.sample(rows, len(rows))
    pool = plan.batch_rows * BATCHES_SORTED_TOGETHER
    batches: list[list[_Encoded]] = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda row: len(row.ids))
        batches += [near[at : at + plan.batch_rows] for at in range(0, len(near), plan.batch_rows)]
    chance.shuffle(batches)
    return batches


def _targets(batch: Sequence[_Encoded]) -> Tensor:
    """Levels, shaped as `_logits`."""
    return torch.tensor([row.level for row in batch])


def _logits(model: Any, batch: Sequence[_Encoded]) -> Tensor:
    """[rows], or [rows, heads] where heads are named."""
    ids, mask = pad_right([row.ids for row in batch], model.config.pad_token_id)
    logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits if isinstance(batch[0].level, tuple) else logits[:, 0]


@torch.inference_mode()
def _by_head(model: Any, rows: Sequence[_Encoded], batch_rows: int) -> list[HeadReport]:
    found = [level for batch in _batched(rows, batch_rows) for level in torch.sigmoid(_logits(model, batch)).tolist()]
    predicted, wanted = (np.array(each).reshape(len(rows), -1).T for each in (found, [row.level for row in rows]))
    return [
        HeadReport(mae=float(np.abs(one - other).mean()), pearson=_pearson(one, other))
        for one, other in zip(predicted, wanted, strict=True)
    ]


def _batched(rows: Sequence[_Encoded], size: int) -> Iterator[Sequence[_Encoded]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _pearson(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> float:
    if not one.std() or not other.std():
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    with_ordinary_permissions(partial).replace(folder)
