"""The fit of MidPO's router over two trained experts, and the model that it makes.

vLLM serves no such model: its gates differ from token to token. It is evaluated by transformers (`load_router`); what
is served is a blend of its experts.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rheostat_server.contract.digest import adapter_digest
from rheostat_training import checkpoint
from rheostat_training.checkpoint import FitState
from rheostat_training.dropout import without_dropout
from rheostat_training.equilibrate.methods.midpo import (
    Experts,
    Router,
    RouterPlan,
    gate_terms,
    put_router,
    read_mask,
    router_loss,
    take_router,
)
from rheostat_training.losses import RowLogs
from rheostat_training.models import LoadedModel
from rheostat_training.processes import Processes
from rheostat_training.progress import Progress
from rheostat_training.resume import claim, plan_facts, rows_digest, write_json
from rheostat_training.step import row_logs
from rheostat_training.tracking import check_tracker, tracker
from rheostat_training.training_set import Positive, StepRows, TrainingRow, learnt, steps

ROUTER: Final = "router.safetensors"
FACTS: Final = "router.json"
LOG: Final = "log.jsonl"
BATCH_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Gates:
    """The gates' means over tokens and layers, a of the safety expert and g of the helpfulness expert; and by layer.

    As the weights of a blend of both experts they are nearest to the router by the sum of squares, and no good ones: a
    gate that opens at few tokens, where they decide, has a mean near 0.
    """

    safety: float
    helpfulness: float
    by_layer: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What a router's fit took, and its gates' means over the calibration set."""

    steps: int
    tokens: int
    seconds: float
    pairs: int
    final_loss: float
    safety_gate: float
    helpfulness_gate: float


def fit_router(
    base: LoadedModel,
    experts: Experts,
    positives: Sequence[Positive],
    plan: RouterPlan,
    out: Path,
    *,
    calibration: Sequence[TrainingRow] | None = None,
    base_name: str = "base",
    report_to: str = "tensorboard",
    progress: Progress | None = None,
) -> RouterReport:
    """Trains the gates into `out/router.safetensors`, with `router.json`, log and report beside it.

    `positives` are pairs; the reference of their DPO is the base. The gates' means are over `calibration`, by default
    the chosen answers of the pairs. A killed run goes on from its checkpoint and ends with the same weights. `base` is
    as before when it returns.

    Raises:
        AnotherRun: `out` holds a router of other pairs, experts, base weights or another plan.
        NotServable: see `put_router`.
        ValueError: see `put_router`; or the tracker is not installed, no pair has a rejected answer, or several
            processes were launched.
    """
    check_tracker(report_to)
    if (count := Processes.open(base.device).count) > 1:
        raise ValueError(f"{count} processes were launched; a router is trained by one")
    calibrated = [item.row for item in positives] if calibration is None else list(calibration)
    facts = {
        "stage": "router",
        "plan": plan_facts(plan),
        "base": base_name,
        "weights": base.digest(),
        **_digests(experts),
    }
    claim(out, {**facts, "pairs": rows_digest(positives), "calibration": rows_digest(calibrated)})
    report = out / "report.json"
    if report.exists():
        (out / checkpoint.FILE).unlink(missing_ok=True)
        return RouterReport(**json.loads(report.read_text()))
    with _routed(base, experts) as router:
        run = _Run.begin(base.model, router, plan, out)
        _train(run, positives, report_to, progress or Progress.auto())
        gates = mean_gates(base.model, router, calibrated, plan)
        _save(run, experts, gates, base_name)
    state = run.state
    result = RouterReport(
        steps=state.step,
        tokens=state.tokens,
        seconds=round(state.seconds, 1),
        pairs=len(learnt(positives, True)),
        final_loss=state.loss,
        safety_gate=gates.safety,
        helpfulness_gate=gates.helpfulness,
    )
    write_json(report, plan_facts(result))
    (out / checkpoint.FILE).unlink(missing_ok=True)
    return result


def load_router(base: LoadedModel, experts: Experts, folder: Path) -> LoadedModel:
    """The base with experts and router, to sample from as from any model; `base` is changed by it.

    Raises:
        ValueError: the folder's router was trained over other experts, or see `put_router`.
    """
    facts = json.loads((folder / FACTS).read_text())
    for name, digest in _digests(experts).items():
        if facts[name] != digest:
            raise ValueError(
                f"{folder} is a router over another {name.replace('_', ' ')}: {facts[name]}, and this is {digest}"
            )
    router = put_router(base.model, experts)
    saved = load_file(folder / ROUTER)
    with torch.no_grad():
        for name, weight in router.weights().items():
            weight.copy_(saved[name])
            weight.requires_grad_(False)
    return LoadedModel(base.model.eval(), base.tokenizer)


def mean_gates(model: Any, router: Router, rows: Sequence[TrainingRow], plan: RouterPlan) -> Gates:
    """The gates' means over the tokens that are read of some rows.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("calibration is empty; the gates' means need at least one answer")
    sums, tokens = torch.zeros(len(router.layers), 2), 0
    for start in range(0, len(rows), BATCH_ROWS):
        batch = rows[start : start + BATCH_ROWS]
        with torch.no_grad():
            row_logs(model, batch, plan.fit, one_forward=True)
        gates = router.recorded()
        read = _read(batch, gates)
        sums += gates[:, read].sum(1).cpu()
        tokens += int(read.sum())
    means = (sums / tokens).tolist()
    safety, helpfulness = (sum(column) / len(means) for column in zip(*means, strict=True))
    by_layer = {name: (_rounded(a), _rounded(g)) for name, (a, g) in zip(router.layers, means, strict=True)}
    return Gates(_rounded(safety), _rounded(helpfulness), by_layer)


@dataclass(frozen=True, slots=True)
class _Run:
    """What stays the same from step to step."""

    model: Any
    router: Router
    weights: Mapping[str, Tensor]
    optimiser: torch.optim.Optimizer
    state: FitState
    plan: RouterPlan
    out: Path

    @classmethod
    def begin(cls, model: Any, router: Router, plan: RouterPlan, out: Path) -> "_Run":
        weights = router.weights()
        optimiser = torch.optim.AdamW(weights.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
        state = checkpoint.load(out, (weights, optimiser))
        return cls(model, router, weights, optimiser, state, plan, out)


def _train(run: _Run, positives: Sequence[Positive], report_to: str, progress: Progress) -> None:
    plan, state = run.plan, run.state
    batches = steps(
        positives,
        batch_rows=plan.batch_rows,
        negatives_per_positive=0.0,
        max_repeats=plan.fit.max_repeats,
        seed=plan.seed,
        in_pairs=True,
        first=state.step,
    )
    with (
        progress.task("router", plan.steps, unit="steps") as task,
        _log(run.out, state.step) as log,
        tracker(report_to, run.out, plan_facts(plan), first_step=state.step) as track,
    ):
        task.skip(state.step)
        while state.step < plan.steps:
            started = time.monotonic()
            rows = next(batches)
            figures = _one_step(run, rows)
            state.loss = figures["loss"]
            state.step += 1
            state.tokens += rows.tokens
            state.seconds += time.monotonic() - started
            print(json.dumps({"step": state.step, **_all_rounded(figures)}), file=log, flush=True)
            if track:
                track.log(figures, step=state.step)
            task.advance(note=f"loss {state.loss:.3f}")
            if state.step % plan.checkpoint_every == 0:
                checkpoint.save(run.out, state, checkpoint.snapshot((run.weights, run.optimiser)))


def _one_step(run: _Run, rows: StepRows) -> dict[str, float]:
    plan, step = run.plan, run.state.step
    rate = plan.fit.learning_rate_at(step)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.zero_grad(set_to_none=True)
    positive, negative, terms = step_logs(run.model, run.router, rows, plan)
    loss = router_loss(positive, negative, plan, terms)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_([*run.weights.values()], plan.clip))
    if not math.isfinite(norm):
        raise RuntimeError(
            f"the gradient of step {step + 1} is not finite; try a lower learning_rate than {plan.learning_rate:g}"
        )
    run.optimiser.step()
    safety, helpfulness = (float(term.detach()) for term in terms)
    figures = {"loss": float(loss.detach()), "learning_rate": rate, "grad_norm": norm}
    return {**figures, "safety_gate": safety, "helpfulness_gate": 1 - helpfulness}


def step_logs(
    model: Any, router: Router, rows: StepRows, plan: RouterPlan
) -> tuple[RowLogs, RowLogs, tuple[Tensor, Tensor]]:
    """What a step's loss is made of: both answers' log probabilities beside the base's, and the gate terms."""
    every = [*rows.positives, *rows.negatives]
    with torch.no_grad(), router.off():
        reference = row_logs(model, every, plan.fit, one_forward=True)[0].sum(1)
    tokens, mask = row_logs(model, every, plan.fit, one_forward=True)
    gates = router.recorded()
    count = len(rows.positives)
    positive, negative = (
        RowLogs(tokens[which], mask[which], count, reference[which]) for which in (slice(count), slice(count, None))
    )
    return positive, negative, gate_terms(gates, _read(every, gates))


def _read(rows: Sequence[TrainingRow], gates: Tensor) -> Tensor:
    return read_mask([row.encoded.length for row in rows], gates.shape[2]).to(gates.device)


@contextmanager
def _routed(base: LoadedModel, experts: Experts) -> Iterator[Router]:
    """The base with experts and gates, without dropout; as before afterwards."""
    learning = [(parameter, parameter.requires_grad) for parameter in base.model.parameters()]
    router = put_router(base.model, experts)
    try:
        with without_dropout(base.model):
            yield router
    finally:
        take_router(base.model, router)
        for parameter, learns in learning:
            parameter.requires_grad_(learns)


def _save(run: _Run, experts: Experts, gates: Gates, base_name: str) -> None:
    partial = run.out / f"{ROUTER}.partial"
    save_file({name: weight.detach().cpu().contiguous() for name, weight in run.weights.items()}, partial)
    partial.replace(run.out / ROUTER)
    write_json(run.out / FACTS, {"base": base_name, **_digests(experts), "mean_gates": plan_facts(gates)})


def _digests(experts: Experts) -> dict[str, str]:
    return {
        "safety_expert": adapter_digest(experts.safety),
        "helpfulness_expert": adapter_digest(experts.helpfulness),
    }


@contextmanager
def _log(out: Path, steps_done: int) -> Iterator[IO[str]]:
    """The log, one line a step, without the lines of steps that are taken again."""
    path = out / LOG
    lines = path.read_text().splitlines()[:steps_done] if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in lines))
    with path.open("a") as file:
        yield file


def _all_rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: _rounded(value) for name, value in figures.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
