"""TRL's trainers for RLOO and GRPO, as we run them: resumable, telling nobody, silent on what people wrote."""

import importlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from accelerate.tracking import GeneralTracker
from huggingface_hub import constants
from transformers import PrinterCallback, TrainerCallback

from rheostat_training.equilibrate.ama.appo import Masker
from rheostat_training.equilibrate.ama.appo_trainer import masked_grpo, masked_rloo
from rheostat_training.equilibrate.ama.masks import SHARES
from rheostat_training.progress import Task

Algorithm = Literal["rloo", "grpo"]
Reward = Callable[..., list[float | None]]

LOG_FIELDS: Final = {
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "mean_tokens",
    "answers": "answers",
    "unjudged": "unjudged",
    "truncated": "truncated",
    "num_tokens": "tokens",
    "step_time": "seconds",
}
"""TRL's name of a figure, and ours in the log."""
PATIENCE: Final = 10
_UNJUDGED_WARNING: Final = "All reward functions returned None"


class NothingJudged(RuntimeError):
    """No answer had a reward in the first steps, so that nothing could be learned."""


class StepLog(TrainerCallback):  # type: ignore[misc]
    """Writes a line a step, tells the tracker, moves the progress on, and stops a run that cannot learn."""

    def __init__(self, path: Path, task: Task, track: GeneralTracker | None) -> None:
        self.path = path
        self.task = task
        self.track = track
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed run begins with the lines of the steps that its checkpoint holds."""
        self.rows = [_row(logs, logs["step"]) for logs in state.log_history if "reward" in logs]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self.task.skip(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: Mapping[str, Any] = kwargs["logs"]
        if "reward" not in logs:
            return
        if not math.isfinite(logs.get("grad_norm", 0.0)):
            raise RuntimeError(f"the gradient of step {state.global_step} is not finite; try a lower learning_rate")
        self.rows.append(_row(logs, state.global_step))
        with self.path.open("a") as file:
            print(json.dumps(self.rows[-1]), file=file)
        if self.track:
            told = {name: value for name, value in self.rows[-1].items() if name != "step" and value is not None}
            self.track.log(told, step=state.global_step)
        said = "nothing judged" if logs["reward"] is None else f"reward {logs['reward']:.3f}"
        self.task.advance(note=said)
        if len(self.rows) == min(PATIENCE, state.max_steps) and all(row["reward"] is None for row in self.rows):
            cut = sum(row["truncated"] for row in self.rows)
            asked = sum(row["answers"] for row in self.rows)
            raise NothingJudged(
                f"none of {asked} answers of the first {len(self.rows)} steps had a reward: {cut} were cut off at "
                f"max_new_tokens, {asked - cut} could not be judged; give more tokens, or another judge"
            )


def _row(logs: Mapping[str, Any], step: int) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step}
    for theirs, ours in LOG_FIELDS.items():
        value = logs.get(theirs)
        row[ours] = round(value, 5) if isinstance(value, float) else value
    row |= {name: round(logs[name], 5) for name in SHARES if name in logs}
    return {**row, **{name: int(row[name]) for name in ("answers", "unjudged", "truncated", "tokens")}}


def train(
    algorithm: Algorithm,
    policy: Any,
    tokenizer: Any,
    reward: Reward,
    rows: Any,
    log: StepLog,
    out: Path,
    last: Path | None,
    masker: Masker | None = None,
    **settings: Any,
) -> None:
    """Trains `policy`, a PEFT model, on rows with a column "prompt"; goes on from the checkpoint `last`, if any.

    With a masker the loss counts the tokens that it keeps alone.
    """
    trainer_class, config_class = _classes(algorithm)
    if masker:
        trainer_class = (masked_rloo if algorithm == "rloo" else masked_grpo)(trainer_class, masker)
    arguments = config_class(
        output_dir=str(out), logging_steps=1, save_total_limit=1, disable_tqdm=True, report_to="none", **settings
    )
    with _no_telemetry():
        trainer = trainer_class(
            model=policy,
            reward_funcs=reward,
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[log],
        )
    trainer.remove_callback(PrinterCallback)
    with _discreet(f"trl.trainer.{algorithm}_trainer"):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    (out / "README.md").unlink(missing_ok=True)


def _classes(algorithm: Algorithm) -> tuple[Any, Any]:
    """A trainer and its configuration.

    TRL imports all of vLLM where one is installed, and warns of versions that it does not know; we never let it
    generate with vLLM, so it is told that there is none.
    """
    checks: Any = importlib.import_module("trl.import_utils")
    asked = checks.is_vllm_available
    checks.is_vllm_available = lambda *_, **__: False
    try:
        from trl import (
            GRPOConfig,  # pyright: ignore[reportPrivateImportUsage]
            GRPOTrainer,  # pyright: ignore[reportPrivateImportUsage]
            RLOOConfig,  # pyright: ignore[reportPrivateImportUsage]
            RLOOTrainer,  # pyright: ignore[reportPrivateImportUsage]
        )
    finally:
        checks.is_vllm_available = asked
    return (RLOOTrainer, RLOOConfig) if algorithm == "rloo" else (GRPOTrainer, GRPOConfig)


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """A trainer tells huggingface.co of the model's architecture and the machine when it is made; ours do not."""
    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


@contextmanager
def _discreet(module: str) -> Iterator[None]:
    """TRL warns of an answer without a reward by printing prompt and answer; we count it instead."""

    def quiet(record: logging.LogRecord) -> bool:
        return _UNJUDGED_WARNING not in str(record.msg)

    logger = logging.getLogger(module)
    logger.addFilter(quiet)
    try:
        yield
    finally:
        logger.removeFilter(quiet)


def last_checkpoint(out: Path) -> Path | None:
    """The last whole checkpoint; what a kill left half written goes.

    The trainer's state is the last file of a checkpoint. TRL's frozen copy of the starting policy goes too: it is made
    anew from the adapter, and transformers loads the copy *instead of* the policy where it finds both.
    """
    whole: dict[int, Path] = {}
    for folder in out.glob("checkpoint-*"):
        if _readable(folder / "trainer_state.json"):
            whole[steps_of(folder)] = folder
        else:
            shutil.rmtree(folder)
    if not whole:
        return None
    last = whole[max(whole)]
    shutil.rmtree(last / "ref", ignore_errors=True)
    return last


def steps_of(checkpoint: Path) -> int:
    """How many steps a checkpoint holds."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def _readable(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True
