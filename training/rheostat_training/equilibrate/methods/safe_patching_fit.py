"""The fit of a safety patch: a LoRA adapter out of two patches that are held in memory alone.

One of the two, θ_GD − θ, makes a jailbroken model. It is written nowhere, not even for a killed run to go on from: such
a run starts again from its beginning. No function gives it out, and what is saved is the sum of both alone.
"""

import hashlib
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import Linear

from rheostat_training.dropout import without_dropout
from rheostat_training.equilibrate.methods.safe_patching import (
    SafePatchPlan,
    Side,
    ascent_loss,
    check_protects,
    combined,
    low_rank,
    retained,
    top_entries,
)
from rheostat_training.equilibrate.pairs import Candidate
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import ADAPTER, linear_layers, save_adapter, with_lora
from rheostat_training.models import LoadedModel
from rheostat_training.processes import Processes
from rheostat_training.progress import Progress
from rheostat_training.resume import claim, plan_facts, rows_digest, write_json
from rheostat_training.rows import Pair, Prompt
from rheostat_training.step import row_logs
from rheostat_training.training_set import TrainingRow, build_pair_set

LOG: Final = "log.jsonl"
AGAIN: Final = "nothing is kept of a run that is cut off; it starts again from its beginning"
ENHANCE: Final = "enhance"
LOOSEN: Final = "loosen"
BATCH_ROWS: Final = 32
Losses = Callable[[Tensor, Tensor], Tensor]
"""Losses of some answers, and the base's of the same, a token -> scalar."""


@dataclass(frozen=True, slots=True)
class SafePatchReport:
    """What a patch is made of and what it does.

    Attributes:
        steps: of both fits together.
        enhance_entries: the share of the layers' entries that the patch against unsafe answers changes.
        loosen_entries: the share that the patch against over-safety changes.
        loosen_energy: the share of the patch's sum of squares that the latter has.
        energy_kept: the share of the patch's sum of squares that the adapter's rank keeps, over all layers.
        least_energy_kept: that of the layer that loses most.
        base_loss: the unsafe answers' mean loss a token under the base, in nats.
        patched_loss: that under the base with the adapter; higher is safer.
    """

    steps: int
    seconds: float
    answers: int
    enhance_entries: float
    loosen_entries: float
    loosen_energy: float
    energy_kept: float
    least_energy_kept: float
    base_loss: float
    patched_loss: float


def unsafe_rows(
    base: LoadedModel,
    prompts: Mapping[str, Prompt],
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    safe_from: float = 0.5,
) -> list[TrainingRow]:
    """Every distinct answer that is unsafe, after its prompt."""
    unsafe = [
        Pair(id, answer, "")
        for id, said in candidates.items()
        for answer in dict.fromkeys(each.answer for each in said if each.safety < safe_from)
    ]
    return [item.row for item in build_pair_set(base, prompts, unsafe)] if unsafe else []


def fit_safe_patch(
    base: LoadedModel,
    harmful: Sequence[TrainingRow],
    plan: SafePatchPlan,
    out: Path,
    *,
    importance_on: Sequence[TrainingRow] | None = None,
    base_name: str = "base",
    progress: Progress | None = None,
) -> SafePatchReport:
    """Learns both patches from unsafe answers to harmful prompts, and saves their sum as `out/adapter`.

    Importance is that for the loss on `importance_on`, by default the harmful rows themselves. `out/log.jsonl` and
    `out/report.json` lie beside the adapter. A killed run starts again from its beginning. `base` is as before when it
    returns.

    Raises:
        AnotherRun: `out` holds a patch of other answers, base weights or another plan.
        Loosens: of the patch more would loosen the model than protect it.
        NotServable: vLLM would not serve the adapter.
        ValueError: there is no answer, the base's weights are quantized, several processes were launched, the adapter's
            rank would mix nothing, or nothing of the patch is against unsafe answers.
    """
    judged = harmful if importance_on is None else importance_on
    _check(base, harmful, judged, plan)
    facts = {"stage": "safe patch", "plan": plan_facts(plan), "base": base_name, "weights": base.digest()}
    claim(out, {**facts, "harmful": rows_digest(harmful), "importance": rows_digest(judged)})
    report = out / "report.json"
    if report.exists():
        return SafePatchReport(**json.loads(report.read_text()))
    with _prepared(base), _log(out) as log:
        run = _Run(base, harmful, judged, plan, base_name, log, progress or Progress.auto())
        result = _patched(run, out)
    write_json(report, plan_facts(result))
    return result


def _check(
    base: LoadedModel, harmful: Sequence[TrainingRow], judged: Sequence[TrainingRow], plan: SafePatchPlan
) -> None:
    for name, rows in (("harmful", harmful), ("importance_on", judged)):
        if not rows:
            raise ValueError(f"{name} is empty; a patch needs at least one unsafe answer")
    if any(not weight.is_floating_point() for weight in base.model.parameters()):
        raise ValueError("the base's weights are quantized; a patch is made of weights of 16 or 32 bits")
    if (count := Processes.open(base.device).count) > 1:
        raise ValueError(f"{count} processes were launched; a patch is made by one")
    name, side = _narrowest(base.model)
    if 2 * plan.export_rank > side:
        raise ValueError(
            f"export_rank is {plan.export_rank}; it must be {side // 2} at most, half of the narrower side of {name}: "
            "nearer to all of it the adapter would hold the patch, and the part of it that loosens, entry by entry"
        )


def _narrowest(model: Any) -> tuple[str, int]:
    """Of the layers that a patch is on, the one with the narrowest side, and that."""
    names = linear_layers(model)
    sides = {
        name: min(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, Linear) and name.rsplit(".", 1)[-1] in names
    }
    return min(sides.items(), key=lambda each: each[1])


@dataclass(frozen=True, slots=True)
class _Run:
    """What stays the same over both patches."""

    base: LoadedModel
    harmful: Sequence[TrainingRow]
    judged: Sequence[TrainingRow]
    plan: SafePatchPlan
    base_name: str
    log: IO[str]
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Learnt:
    """One patch by layer: its low-rank factors, applied as they are, and its index set."""

    factors: Mapping[str, tuple[Tensor, Tensor]]
    chosen: Mapping[str, Tensor]

    def side(self, layer: str, name: str, weight: float, plan: SafePatchPlan) -> Side:
        b, a = self.factors[layer]
        return Side(retained(b @ a, plan.retention, _chance(plan.seed, name, layer)), self.chosen[layer], weight)


def _patched(run: _Run, out: Path) -> SafePatchReport:
    started = time.monotonic()
    plan = run.plan
    of_base = _losses(run.base.model, run.harmful, plan.fit)
    enhance = _learn(
        run, ENHANCE, plan.top_enhance, of_base, lambda own, base: ascent_loss(own, base, plan.ascent_margin)
    )
    loosen = _learn(run, LOOSEN, plan.top_loosen, of_base, lambda own, _: own.mean())
    model = with_lora(run.base.model, plan.exported, run.base_name)
    try:
        sums = _export(model, enhance, loosen, plan)
        check_protects(sums["enhance"], sums["loosen"])
        patched = _losses(model, run.harmful, plan.fit)
        save_adapter(model, out / ADAPTER)
    finally:
        model.unload()
    return SafePatchReport(
        steps=2 * plan.steps,
        seconds=round(time.monotonic() - started, 1),
        answers=len(run.harmful),
        enhance_entries=_rounded(sums["enhance entries"] / sums["entries"]),
        loosen_entries=_rounded(sums["loosen entries"] / sums["entries"]),
        loosen_energy=_rounded(sums["loosen"] / max(sums["enhance"] + sums["loosen"], 1e-30)),
        energy_kept=_rounded(sums["kept"] / max(sums["energy"], 1e-30)),
        least_energy_kept=_rounded(sums["least"]),
        base_loss=_rounded(float(of_base.mean())),
        patched_loss=_rounded(float(patched.mean())),
    )


def _learn(run: _Run, name: str, top: float, of_base: Tensor, losses: Losses) -> _Learnt:
    """One patch, from the base on: its factors, and its index set by the importance of the weights it leads to."""
    plan = run.plan
    model = with_lora(run.base.model, plan.fit, run.base_name)
    try:
        _descend(run, model, name, of_base, losses)
        importance = _importance(model, run.judged, plan)
        chosen = {layer: top_entries(score, top) for layer, score in importance.items()}
        factors = {
            layer: (module.scaling["default"] * module.lora_B["default"].weight.detach().clone(),
                    module.lora_A["default"].weight.detach().clone())
            for layer, module in _layers(model)
        }  # fmt: skip
        return _Learnt(factors, chosen)
    finally:
        model.unload()


def _descend(run: _Run, model: Any, name: str, of_base: Tensor, losses: Losses) -> None:
    fit = run.plan.fit
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=fit.learning_rate, weight_decay=0.0)
    batches = _batches(len(run.harmful), fit.batch_rows, f"{fit.seed} {name}")
    with run.progress.task(f"safe patch {name}", fit.steps, unit="steps") as task:
        for step in range(fit.steps):
            places = next(batches)
            for group in optimiser.param_groups:
                group["lr"] = fit.learning_rate_at(step)
            optimiser.zero_grad(set_to_none=True)
            own = _row_losses(model, [run.harmful[place] for place in places], fit)
            loss = losses(own, of_base[places].to(own.device))
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(torch.nn.utils.clip_grad_norm_(weights, fit.clip))
            if not math.isfinite(norm):
                raise RuntimeError(
                    f"the gradient of step {step + 1} of {name} is not finite; try a lower learning_rate than "
                    f"{fit.learning_rate:g}"
                )
            optimiser.step()
            mean = float(own.detach().mean())
            told = {"patch": name, "step": step + 1, "loss": _rounded(mean), "grad_norm": _rounded(norm)}
            print(json.dumps(told), file=run.log, flush=True)
            task.advance(note=f"loss {mean:.3f}")


def _importance(model: Any, rows: Sequence[TrainingRow], plan: SafePatchPlan) -> dict[str, Tensor]:
    """SNIP's mean over rows of |W ⊙ ∇_W L|, W the weights with the patch, [out, in] a layer (arXiv 2402.05162)."""
    layers = dict(_layers(model))
    places = random.Random(f"{plan.seed} importance").sample(range(len(rows)), min(len(rows), plan.importance_rows))
    found = {name: torch.zeros_like(layer.weight, dtype=torch.float32) for name, layer in layers.items()}
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    try:
        for place in sorted(places):
            loss = _row_losses(model, [rows[place]], plan.fit).mean()
            gradients = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
            for score, gradient in zip(found.values(), gradients, strict=True):
                score += gradient.abs().float() / len(places)
    finally:
        for layer in layers.values():
            layer.weight.requires_grad_(False)
    with torch.no_grad():
        for name, layer in layers.items():
            found[name] *= (layer.weight + layer.get_delta_weight("default")).abs().float()
    return found


def _export(model: Any, enhance: _Learnt, loosen: _Learnt, plan: SafePatchPlan) -> dict[str, float]:
    """Puts the sum of both patches into the adapter, layer by layer; what it is made of, summed over the layers."""
    sums: defaultdict[str, float] = defaultdict(float)
    least = 1.0
    for layer, module in _layers(model):
        sides = enhance.side(layer, ENHANCE, plan.alpha, plan), loosen.side(layer, LOOSEN, plan.beta, plan)
        parts = sides[0].without(sides[1]), sides[1].without(sides[0])
        factors = low_rank(combined(*sides), plan.export_rank)
        with torch.no_grad():
            module.lora_A["default"].weight.copy_(factors.a)
            module.lora_B["default"].weight.copy_(factors.b)
        sums["entries"] += parts[0].numel()
        for name, part in zip((ENHANCE, LOOSEN), parts, strict=True):
            sums[f"{name} entries"] += int(part.count_nonzero())
            sums[name] += float(part.float().square().sum())
        sums["energy"] += factors.energy
        sums["kept"] += factors.kept
        least = min(least, factors.kept / factors.energy) if factors.energy else least
    return {**sums, "least": least}


def _row_losses(model: Any, rows: Sequence[TrainingRow], fit: FitPlan) -> Tensor:
    """The mean loss a token of each row, [rows]."""
    logs, mask = row_logs(model, rows, fit)
    return -logs.sum(1) / mask.sum(1).clamp(min=1)


def _losses(model: Any, rows: Sequence[TrainingRow], fit: FitPlan) -> Tensor:
    with torch.no_grad():
        starts = range(0, len(rows), BATCH_ROWS)
        return torch.cat([_row_losses(model, rows[start : start + BATCH_ROWS], fit).cpu() for start in starts])


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers that have an adapter, by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _batches(rows: int, size: int, seed: str) -> Iterator[list[int]]:
    """Endless batches of places, each row once a pass."""
    chance = random.Random(f"safe patch {seed}")
    left: list[int] = []
    while True:
        while len(left) < min(size, rows):
            left += chance.sample(range(rows), rows)
        batch, left = left[:size], left[size:]
        yield batch


def _chance(seed: int, *names: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {names}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def _prepared(base: LoadedModel) -> Iterator[None]:
    """The base without dropout, and as before afterwards."""
    learning = [(parameter, parameter.requires_grad) for parameter in base.model.parameters()]
    try:
        with without_dropout(base.model):
            yield
    finally:
        for parameter, learns in learning:
            parameter.requires_grad_(learns)
        base.model.eval()


@contextmanager
def _log(out: Path) -> Iterator[IO[str]]:
    """The log, begun anew; it says whether a run before this one was cut off."""
    path = out / LOG
    before = path.exists()
    with path.open("w") as file:
        print(json.dumps({"note": AGAIN, "cut_off_before": before}), file=file, flush=True)
        yield file


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
