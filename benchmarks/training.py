"""How fast `fit` trains, beside TRL's SFTTrainer, and what a step of ExMATE or RPO costs beside a step of CLM.

    python -m benchmarks.training [--rounds N] [--steps N] [--threads N] [--clock wall|cpu] [--json FILE]
        [--markdown FILE]

Both trainers get the same base model, LoRA (rank, scale, layers), token ids, rows a batch, optimiser, learning rate
and one number of threads, in float32, and learn from the answers alone. Ours groups rows by length; TRL's is told to
do so too (`train_sampling_strategy="group_by_length"`), and neither recomputes activations. A run is one pass over the
answers, whatever `--steps` is: TRL's begins with the longest batch, and less than a pass would have more of those than
ours. A figure is tokens of prompts and answers, padding not counted, over the time from the first step's beginning to
the last one's end; `--clock cpu` counts this process's seconds of CPU, for a machine that others use too (with one
thread). Sides alternate, ours first in even rounds; a ratio is of one round.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import TrainerCallback

from benchmarks.overhead_report import machine, with_section
from rheostat_server import demo
from rheostat_server.contract.dials import Dials
from rheostat_training.demo.answer import TOP_LEVEL, Manner, write_answer
from rheostat_training.demo.corpus import draw_scenario
from rheostat_training.fit import FitPlan, fit
from rheostat_training.fit_plan import Attention, LossName
from rheostat_training.lora import linear_layers, with_lora
from rheostat_training.losses import RowLogs, exmate
from rheostat_training.models import LoadedModel, load_base
from rheostat_training.progress import Progress, Task
from rheostat_training.rows import Example, Prompt
from rheostat_training.step import row_logs, step_loss
from rheostat_training.training_set import Positive, StepRows, TrainingRow, build_training_set, steps

Clock = Callable[[], float]
CORNERS: Final = [(helpfulness, safety) for helpfulness in (0, TOP_LEVEL) for safety in (0, TOP_LEVEL)]
AIM_STEP: Final = 1.6
CLOCKS: Final[dict[str, Clock]] = {"wall": time.perf_counter, "cpu": time.process_time}
PLAN: Final = FitPlan(loss="clm", learning_rate=2e-3, warmup_steps=0, dtype="float32", checkpoint_every=10**6)
STEP_PLAN: Final = replace(PLAN, attention="eager")

Side = Callable[[], float]
StepLoss = Callable[[Any, StepRows], Tensor]


@dataclass(slots=True)
class Row:
    """Two things compared; figures of the same index are of the same round."""

    what: str
    unit: str
    ours: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        return [ours / other for ours, other in zip(self.ours, self.other, strict=True)]

    def line(self) -> str:
        ratios = self.ratios()
        ratio = f"**{statistics.median(ratios):.3f}** ({min(ratios):.3f} to {max(ratios):.3f})"
        both = f"{statistics.median(self.ours):.4g} / {statistics.median(self.other):.4g} {self.unit}"
        return f"| {self.what} | {ratio} | {both} |"


@dataclass(frozen=True, slots=True)
class World:
    """Base model, prompts and answers, four corners a prompt."""

    folder: Path
    prompts: Mapping[str, Prompt]
    examples: Sequence[Example]

    @classmethod
    def draw(cls, folder: Path, answers: int) -> "World":
        chance = random.Random("benchmarks")
        prompts, examples = {}, []
        for number in range(answers // len(CORNERS)):
            id, scenario = f"p{number}", draw_scenario(chance)
            prompts[id] = Prompt.user(id, scenario.prompt)
            for helpfulness, safety in CORNERS:
                levels = (safety / TOP_LEVEL, helpfulness / TOP_LEVEL)
                answer = write_answer(scenario, Manner(helpfulness, safety, greeting=0, tone=1), chance)
                examples.append(Example(id, answer, Dials(safety=levels[0], helpfulness=levels[1]), *levels))
        return cls(folder, prompts, examples)

    def positives(self, base: LoadedModel) -> list[Positive]:
        return build_training_set(base, self.prompts, self.examples, negative_distance=0.5)


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    world = World.draw(given.model, answers=given.steps * PLAN.batch_rows)
    attentions: list[Attention] = ["sdpa", "eager"]
    with Progress.auto().task("measure", given.rounds * (2 * len(attentions) + 1), unit="runs") as task:
        rows = [_against_trl(world, given, attention, task) for attention in attentions]
        rows += _step_costs(world, given, task)
    section = describe(rows, given)
    print(section)
    if given.json:
        figures = [{"what": row.what, "ours": row.ours, "other": row.other, "ratios": row.ratios()} for row in rows]
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    if given.markdown:
        text = given.markdown.read_text() if given.markdown.exists() else "# Benchmarks\n"
        given.markdown.write_text(with_section(text, section, "training"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="steps of one run, which is one pass over the answers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--model", type=Path, default=demo.base_folder())
    parser.add_argument("--json", type=Path, help="file for every figure")
    parser.add_argument("--markdown", type=Path, help="file whose section of this benchmark is replaced")
    given = parser.parse_args()
    for name in ("rounds", "steps", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} is {getattr(given, name)}; it must be at least 1")
    return given


def _against_trl(world: World, given: argparse.Namespace, attention: Attention, task: Task) -> Row:
    plan = replace(PLAN, steps=given.steps, attention=attention)
    row = Row(f"fit with CLM / TRL's SFTTrainer, {attention} attention", "tokens/s")
    clock = CLOCKS[given.clock]
    ours, other = lambda: _fit_speed(world, plan, clock), lambda: _trl_speed(world, plan, clock)
    for number in range(given.rounds):
        mine, theirs = _alternated(ours, other, first_first=number % 2 == 0)
        row.ours.append(mine)
        row.other.append(theirs)
        task.advance(2)
    return row


def _alternated(first: Side, second: Side, *, first_first: bool) -> tuple[float, float]:
    if first_first:
        mine = first()
        return mine, second()
    theirs = second()
    return first(), theirs


@dataclass(slots=True)
class StepClock:
    """Stands where a progress bar does: when the first step began, and when the last one ended."""

    clock: Clock
    began: float = 0.0
    ended: float = 0.0

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        self.ended = self.clock()

    def skip(self, amount: int) -> None:
        self.began = self.clock()

    @contextmanager
    def open(self) -> Iterator[Task]:
        yield self


def _fit_speed(world: World, plan: FitPlan, clock: Clock) -> float:
    task = StepClock(clock)

    def opened(name: str, total: int, unit: str) -> AbstractContextManager[Task]:
        return task.open()

    base = load_base(world.folder)
    with tempfile.TemporaryDirectory() as out:
        report = fit(base, world.prompts, world.examples, plan, Path(out), report_to="none", progress=Progress(opened))
    return report.tokens / (task.ended - task.began)


class TrainClock(TrainerCallback):  # type: ignore[misc]
    """When TRL's first step began, and when its last one ended."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.began = self.ended = 0.0

    def on_train_begin(self, *given: Any, **more: Any) -> None:
        self.began = self.clock()

    def on_step_end(self, *given: Any, **more: Any) -> None:
        self.ended = self.clock()


def _trl_speed(world: World, plan: FitPlan, clock: Clock) -> float:
    base = load_base(world.folder)
    base.model.set_attn_implementation(plan.attention)
    train = TrainClock(clock)
    with tempfile.TemporaryDirectory() as out:
        trainer = trl.SFTTrainer(
            model=base.model,
            args=_trl_settings(plan, out),
            train_dataset=_as_dataset(world.positives(base)),
            processing_class=base.tokenizer,
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=plan.rank,
                lora_alpha=plan.lora_alpha,
                target_modules=linear_layers(base.model),
            ),
            callbacks=[train],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return float(trainer._total_train_tokens) / (train.ended - train.began)


def _trl_settings(plan: FitPlan, out: str) -> Any:
    return trl.SFTConfig(
        output_dir=out,
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch_rows,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="cosine",
        weight_decay=plan.weight_decay,
        max_grad_norm=plan.clip,
        train_sampling_strategy="group_by_length",
        completion_only_loss=True,
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=plan.seed,
    )


def _as_dataset(positives: Sequence[Positive]) -> Any:
    encoded = [positive.row.encoded for positive in positives]
    return Dataset.from_dict(
        {
            "input_ids": [[*row.prompt_ids, *row.answer_ids] for row in encoded],
            "completion_mask": [[0] * len(row.prompt_ids) + [1] * len(row.answer_ids) for row in encoded],
        }
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to take a step with negatives."""

    what: str
    negatives: float
    loss: StepLoss


def _kinds() -> list[Kind]:
    half = STEP_PLAN.negatives_per_positive
    return [
        Kind(f"ExMATE, {half:g} negatives a positive, as fit does", half, _joint("exmate")),
        Kind("ExMATE, 1 negative a positive, a forward of their own (the naive way)", 1.0, _two_forwards),
        Kind("RPO or DPO, 1 negative a positive, all rows once more without the adapter", 1.0, _joint("rpo")),
    ]


def _step_costs(world: World, given: argparse.Namespace, task: Task) -> list[Row]:
    """Forward and backward of the same positives, with negatives and alone, step by step in turn."""
    clock = CLOCKS[given.clock]
    base = load_base(world.folder)
    base.model.set_attn_implementation(STEP_PLAN.attention)
    positives = world.positives(base)
    model = with_lora(base.model, STEP_PLAN, "base").train()
    kinds = [(kind, _drawn(positives, kind.negatives, given.steps)) for kind in _kinds()]
    rows = [Row(f"step of {kind.what} / step of CLM", "s") for kind, _ in kinds]
    for _ in range(given.rounds):
        for row, (kind, drawn) in zip(rows, kinds, strict=True):
            pairs = [_one_pair(model, kind, step, clock, first_first=at % 2 == 0) for at, step in enumerate(drawn)]
            row.ours.append(statistics.fmean(mine for mine, _ in pairs))
            row.other.append(statistics.fmean(theirs for _, theirs in pairs))
        task.advance()
    return rows


def _one_pair(model: Any, kind: Kind, rows: StepRows, clock: Clock, *, first_first: bool) -> tuple[float, float]:
    """Seconds of one step with its negatives, and of the same step without them by CLM."""
    alone = StepRows(rows.positives, ())
    return _alternated(
        lambda: _seconds(model, kind.loss, rows, clock),
        lambda: _seconds(model, _clm, alone, clock),
        first_first=first_first,
    )


def _seconds(model: Any, loss: StepLoss, rows: StepRows, clock: Clock) -> float:
    began = clock()
    loss(model, rows).backward()  # type: ignore[no-untyped-call]
    seconds = clock() - began
    model.zero_grad(set_to_none=True)
    return seconds


def _clm(model: Any, rows: StepRows) -> Tensor:
    return step_loss(model, rows, STEP_PLAN)


def _joint(loss: LossName) -> StepLoss:
    return partial(step_loss, plan=replace(STEP_PLAN, loss=loss))


def _two_forwards(model: Any, rows: StepRows) -> Tensor:
    good, bad = (_logs_of(model, some) for some in (rows.positives, rows.negatives))
    return exmate(good, bad, STEP_PLAN.alpha)


def _logs_of(model: Any, rows: Sequence[TrainingRow]) -> RowLogs:
    return RowLogs(*row_logs(model, rows, STEP_PLAN, one_forward=True), of=len(rows))


def _drawn(positives: Sequence[Positive], negatives: float, count: int) -> list[StepRows]:
    every = steps(positives, batch_rows=PLAN.batch_rows, negatives_per_positive=negatives, max_repeats=8, seed=0)
    return list(islice(every, count))


def describe(rows: Sequence[Row], given: argparse.Namespace) -> str:
    """The section of `docs/benchmarks.md`."""
    head = "| | ratio: median (min to max) | both |\n|---|---|---|"
    return (
        "## Training\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {given.threads} thread(s), {given.clock} time, float32. Base "
        f"`{given.model.name}`, LoRA of rank {PLAN.rank} on every linear layer, {PLAN.batch_rows} rows a step, "
        f"{given.steps} steps a run, {given.rounds} rounds; torch {torch.__version__}, TRL "
        f"{trl.__version__}. Aims: at least 1 beside TRL, at most {AIM_STEP} for a step of ExMATE beside one of CLM. "
        "Made by `python -m benchmarks.training`.\n\n" + "\n".join([head, *(row.line() for row in rows)])
    )


if __name__ == "__main__":
    main()
