"""The fit stage: a LoRA adapter that obeys the dials, trained on distilled answers.

`fit_plan` says what is to be done, `training_set` which rows a step takes, `step` what a step's loss is, `lora` what
is trained, `checkpoint` how a killed run goes on, `processes` how several share the work.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from rheostat_training import checkpoint
from rheostat_training.checkpoint import FitState, trained_weights
from rheostat_training.dropout import without_dropout
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import ADAPTER, save_adapter, with_lora
from rheostat_training.models import LoadedModel
from rheostat_training.processes import Processes
from rheostat_training.progress import Progress
from rheostat_training.resume import claim, plan_facts, rows_digest, write_json
from rheostat_training.rows import Example, Prompt
from rheostat_training.step import part_loss
from rheostat_training.tracking import check_tracker, tracker
from rheostat_training.training_set import Positive, StepRows, build_training_set, learnt, steps

__all__ = ["FitPlan", "FitReport", "fit", "fit_on"]

LOG: Final = "log.jsonl"


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit took; `positives` are those that it can draw.

    The loss says that training ran, never that the dials work: ask `evaluate`.
    """

    steps: int
    tokens: int
    seconds: float
    positives: int
    final_loss: float


def fit(
    base: LoadedModel,
    prompts: Mapping[str, Prompt],
    examples: Sequence[Example],
    plan: FitPlan,
    out: Path,
    *,
    base_name: str = "base",
    report_to: str = "tensorboard",
    progress: Progress | None = None,
) -> FitReport:
    """Trains an adapter into `out/adapter`, with `out/log.jsonl` and `out/report.json` beside it.

    A killed run goes on from `out/checkpoint.safetensors` and ends with the same weights; with another number of
    processes, the same up to rounding. `base` is as before when it returns, unless the launch shards it: then this
    process holds a part of its weights alone. `base_name` is what the adapter's configuration calls the base model;
    `report_to` is a tracker of accelerate's, or "none".

    Raises:
        AnotherRun: `out` holds a fit of other examples, prompts, base weights or another plan, or the chat template
            writes them in another way now.
        NotServable: vLLM would not serve the adapter.
        ValueError: the tracker is not installed, the examples cannot be learned from, or not by a launch like this one;
            the message says why.
    """
    positives = build_training_set(
        base, prompts, examples, negative_distance=plan.negative_distance, dither=plan.dither
    )
    rows = {"examples": rows_digest(examples), "prompts": rows_digest(prompts.values())}
    return fit_on(base, positives, plan, out, rows, base_name=base_name, report_to=report_to, progress=progress)


def fit_on(
    base: LoadedModel,
    positives: Sequence[Positive],
    plan: FitPlan,
    out: Path,
    rows: Mapping[str, Any],
    *,
    told: str = "",
    base_name: str = "base",
    report_to: str = "tensorboard",
    progress: Progress | None = None,
) -> FitReport:
    """`fit` on rows that are encoded already; `rows` says what they were made of, for a resumed run to compare.

    `told` is what the progress calls it, by default by its loss.

    Raises:
        ValueError: `plan.masking` is on and a row has no rewards, besides what `fit` raises.
    """
    check_tracker(report_to)
    processes = Processes.open(base.device)
    if processes.sharded:
        plan.check_sharded()
    facts = {"stage": "fit", "plan": plan_facts(plan), "base": base_name, "weights": base.digest(), **rows}
    facts["tokens"] = rows_digest((item.row.encoded, item.plain_ids) for item in positives)
    if preferred := [item for item in positives if item.row.rewards is not None or item.row.aim]:
        facts["preferences"] = rows_digest((item.row, item.negatives) for item in preferred)
    with processes.first_goes_first():
        claim(out, facts)
    report = out / "report.json"
    if report.exists():
        if processes.first:
            _clean_up(out)
        return FitReport(**json.loads(report.read_text()))
    with _prepared(base, plan):
        model = with_lora(base.model, plan, base_name)
        try:
            run = _Run.begin(model, plan, out, processes)
            result = _train(run, positives, told or f"fit {plan.loss}", report_to, progress or Progress.auto())
            _save(run)
        finally:
            model.unload()
    if processes.first:
        write_json(report, plan_facts(result))
        _clean_up(out)
    processes.wait()
    return result


def _clean_up(out: Path) -> None:
    """Takes away what a fit that has its report needs no more, also one that was killed in between."""
    (out / checkpoint.FILE).unlink(missing_ok=True)


@contextmanager
def _prepared(base: LoadedModel, plan: FitPlan) -> Iterator[None]:
    """The base set up for training, and put back afterwards.

    Where its answers are compared with the adapter's, in pairs or by anchors, neither has the base's own dropout: an
    adapter that has learnt nothing is then no farther from the base than 0.
    """
    attention = base.model.config._attn_implementation
    learning = [(parameter, parameter.requires_grad) for parameter in base.model.parameters()]
    if plan.attention != "auto":
        base.model.set_attn_implementation(plan.attention)
    if plan.gradient_checkpointing:
        base.model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        with without_dropout(base.model) if plan.compares else nullcontext():
            yield
    finally:
        for parameter, learns in learning:
            parameter.requires_grad_(learns)
        if plan.gradient_checkpointing:
            base.model.gradient_checkpointing_disable()
        if plan.attention != "auto":
            base.model.set_attn_implementation(attention)
        base.model.eval()


@dataclass(frozen=True, slots=True)
class _Run:
    """What stays the same from step to step. `model` is what is called, `adapted` the PEFT model inside it."""

    model: Any
    adapted: Any
    weights: Mapping[str, Tensor]
    optimiser: torch.optim.Optimizer
    state: FitState
    plan: FitPlan
    out: Path
    processes: Processes

    @classmethod
    def begin(cls, adapted: Any, plan: FitPlan, out: Path, processes: Processes) -> "_Run":
        learning = trained_weights(adapted).values()
        optimiser = torch.optim.AdamW(learning, lr=plan.learning_rate, weight_decay=plan.weight_decay)
        model, optimiser = processes.share(adapted, optimiser)
        weights = trained_weights(adapted)
        state = checkpoint.load(out, (weights, optimiser))
        return cls(model, adapted, weights, optimiser, state, plan, out, processes)

    def checkpoint(self) -> None:
        tensors = checkpoint.snapshot((self.weights, self.optimiser))
        if self.processes.first:
            checkpoint.save(self.out, self.state, tensors)


def _train(run: _Run, positives: Sequence[Positive], told: str, report_to: str, progress: Progress) -> FitReport:
    plan, state, first = run.plan, run.state, run.processes.first
    batches = _batches(positives, plan, state.step)
    shown = progress if first else Progress.silent()
    run.model.train()
    with (
        shown.task(told, plan.steps, unit="steps") as task,
        _log(run.out, state.step, write=first) as log,
        tracker(report_to if first else "none", run.out, plan_facts(plan), first_step=state.step) as track,
    ):
        task.skip(state.step)
        while state.step < plan.steps:
            started = time.monotonic()
            rows = next(batches)
            if state.step < plan.head_steps:
                rows = rows.heads(plan.head_tokens)
            if plan.masking.on:
                rows = rows.masked(plan.masking, str(plan.seed))
            figures = _one_step(run, rows)
            seconds = time.monotonic() - started
            state.loss = figures["loss"]
            state.step += 1
            state.tokens += rows.tokens
            state.seconds += seconds
            if log:
                print(json.dumps({"step": state.step, **_rounded(figures)}), file=log, flush=True)
            if track:
                track.log({**figures, "tokens_per_second": rows.tokens / seconds}, step=state.step)
            task.advance(note=f"loss {state.loss:.3f}")
            if state.step % plan.checkpoint_every == 0:
                run.checkpoint()
    run.model.eval()
    return FitReport(
        state.step, state.tokens, round(state.seconds, 1), len(learnt(positives, plan.in_pairs)), state.loss
    )


def _batches(positives: Sequence[Positive], plan: FitPlan, first: int) -> Iterator[StepRows]:
    return steps(
        positives,
        batch_rows=plan.batch_rows,
        negatives_per_positive=plan.negatives,
        max_repeats=plan.max_repeats,
        seed=plan.seed,
        in_pairs=plan.in_pairs,
        anchors=plan.anchors,
        anchor_after=plan.head_tokens,
        first=first,
    )


def _one_step(run: _Run, rows: StepRows) -> dict[str, float]:
    """Forward, backward and update; what the step's figures are by name."""
    plan, step, processes = run.plan, run.state.step, run.processes
    torch.manual_seed(plan.seed * 1_000_003 + step + processes.number * 1_000_000_007)
    rate = plan.learning_rate_at(step)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.zero_grad(set_to_none=True)
    parts = _parts(rows, plan, processes)
    found = []
    for number, part in enumerate(parts, 1):
        with processes.exchanging(run.model, now=number == len(parts)):
            reached = part_loss(run.model, part, rows, plan, one_forward=processes.sharded)
            processes.backward(reached.loss)
        found.append(torch.stack([reached.loss.detach().double(), reached.negative.double()]))
    norm = float(checkpoint.whole(torch.nn.utils.clip_grad_norm_([*run.weights.values()], plan.clip)))
    loss, negative = processes.total(torch.stack(found).sum(0))
    if not math.isfinite(norm):
        raise RuntimeError(
            f"the gradient of step {step + 1} is not finite, at a loss of {loss:.5g}; try a lower fit.learning_rate "
            f"than {plan.learning_rate:g}"
        )
    run.optimiser.step()
    figures = {"loss": loss, "learning_rate": rate, "grad_norm": norm, **rows.kept}
    return {**figures, "negative_likelihood": negative} if rows.negatives else figures


def _parts(rows: StepRows, plan: FitPlan, processes: Processes) -> list[StepRows]:
    """This process's share of a step, in the fewest parts that have no more than `micro_batch_rows` rows."""
    own = rows.split(processes.count)[processes.number]
    if not plan.micro_batch_rows:
        return [own]
    positives, negatives = (-(-len(some) // processes.count) for some in (rows.positives, rows.negatives))
    most = max(positives, negatives)
    able = (parts for parts in range(1, most) if _largest(positives, negatives, parts) <= plan.micro_batch_rows)
    return own.split(next(able, most))


def _largest(positives: int, negatives: int, parts: int) -> int:
    """The rows of the largest part."""
    return -(-positives // parts) - (-negatives // parts)


def _save(run: _Run) -> None:
    weights = {name: checkpoint.whole(weight) for name, weight in run.weights.items()}
    if run.processes.first:
        run.adapted.peft_config["default"].lora_alpha = run.plan.lora_alpha * run.plan.strength
        save_adapter(run.adapted, run.out / ADAPTER, weights=weights)


@contextmanager
def _log(out: Path, steps_done: int, *, write: bool) -> Iterator[IO[str] | None]:
    """The log, one line a step, without the lines of steps that are taken again."""
    if not write:
        yield None
        return
    path = out / LOG
    lines = path.read_text().splitlines()[:steps_done] if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in lines))
    with path.open("a") as file:
        yield file


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.5g}") for name, value in figures.items()}
