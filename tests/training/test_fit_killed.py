"""A fit that SIGKILL ends at any moment, and that is run again: the adapter's bytes are those of a fit left alone."""

import random
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from rheostat_training import checkpoint, fit, lora
from tests.training.killed import HalfAFile, begin, die, ended, kill_when, replaced
from tests.training.tiny_fit import PLAN, tiny_fit

LONG = replace(PLAN, steps=150, checkpoint_every=2)
KILLS = 6


MOMENTS = {
    "half a checkpoint is written": (checkpoint, "save_file", HalfAFile()),
    "the adapter is written and not yet in its place": (lora, "check_folder", die),
    "the adapter is in its place and the report is not": (fit, "write_json", die),
}
"""What a process is named, and what of the fit is replaced in it."""


@pytest.fixture(scope="module")
def whole(processes: ForkServerContext, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit that nothing ended."""
    out = tmp_path_factory.mktemp("whole")
    assert ended(begin(processes, fit_and_die, tiny_model, out)) == 0
    return out


def fit_and_die(tokenizer: Path, out: Path, moment: str = "") -> None:
    """Fits; where a moment is named, the process kills itself there."""
    replaced(MOMENTS.get(moment))
    tiny_fit(tokenizer, out, LONG)


def same(whole: Path, killed: Path) -> None:
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "log.jsonl"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    assert {path.name for path in killed.iterdir()} >= {"adapter", "inputs.json", "log.jsonl", "report.json"}
    assert not (killed / checkpoint.FILE).exists()


def test_a_fit_killed_at_random_moments_ends_with_the_bytes_of_an_uninterrupted_one(
    processes: ForkServerContext, tiny_model: Path, whole: Path, tmp_path: Path
) -> None:
    chance = random.Random(4)
    log = tmp_path / "log.jsonl"
    for kill in range(1, KILLS + 1):
        process = begin(processes, fit_and_die, tiny_model, tmp_path)
        kill_when(process, has_lines(log, kill * LONG.steps // (KILLS + 2)), after_s=chance.uniform(0, 0.05))
    assert (tmp_path / checkpoint.FILE).exists()
    assert ended(begin(processes, fit_and_die, tiny_model, tmp_path)) == 0
    same(whole, tmp_path)


def has_lines(log: Path, count: int) -> Callable[[], bool]:
    """Whether a fit has come so far. It first takes out lines of steps that it takes again."""
    return lambda: log.exists() and log.read_bytes().count(b"\n") >= count


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_fit_killed_where_it_writes_ends_with_the_bytes_of_an_uninterrupted_one(
    processes: ForkServerContext, tiny_model: Path, whole: Path, tmp_path: Path, moment: str
) -> None:
    assert ended(begin(processes, fit_and_die, tiny_model, tmp_path, moment)) == -signal.SIGKILL
    assert not (tmp_path / "report.json").exists()
    assert ended(begin(processes, fit_and_die, tiny_model, tmp_path)) == 0
    same(whole, tmp_path)
