"""A scorer that SIGKILL ends while it is trained, and that is run again: its bytes are those of one left alone."""

import json
import random
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from rheostat_training import checkpoint, scorer_fit
from rheostat_training.progress import Progress
from rheostat_training.scorer_fit import ScorerPlan, ScorerShape, fit_scorer
from tests.training.killed import HalfAFile, begin, die, ended, kill_when, replaced
from tests.training.test_scorers import rows_of_two_kinds

PLAN = ScorerPlan(
    shape=ScorerShape(hidden=32, layers=1, heads=2, max_length=64), epochs=12, batch_rows=16, checkpoint_every=5
)
STEPS = 216
"""Twelve epochs of 18 batches."""
KILLS = 4
MOMENTS = {
    "half a checkpoint is written": (checkpoint, "save_file", HalfAFile()),
    "the model is written and not yet in its place": (scorer_fit, "with_ordinary_permissions", die),
    "the model is in its place and the report is not": (scorer_fit, "write_json", die),
}
"""What a process is named, and what of the training is replaced in it."""


def fit_and_die(tokenizer: Path, out: Path, moment: str = "") -> None:
    """Trains; where a moment is named, the process kills itself there."""
    replaced(MOMENTS.get(moment))
    torch.set_num_threads(1)
    words = AutoTokenizer.from_pretrained(tokenizer)
    fit_scorer(rows_of_two_kinds(), words, PLAN, out, progress=Progress.silent())


@pytest.fixture(scope="module")
def whole(processes: ForkServerContext, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nothing ended."""
    out = tmp_path_factory.mktemp("whole")
    assert ended(begin(processes, fit_and_die, tiny_model, out)) == 0
    return out


def same(whole: Path, killed: Path) -> None:
    for name in ("model/model.safetensors", "model/config.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    reports = [json.loads((folder / "report.json").read_text()) for folder in (whole, killed)]
    assert reports[1] == {**reports[0], "seconds": reports[1]["seconds"]}
    assert {path.name for path in killed.iterdir()} == {"inputs.json", "model", "report.json"}


def steps_done(out: Path) -> int:
    """Those that its checkpoint holds, read from one open file: the trainer may put another in its place meanwhile."""
    path = out / checkpoint.FILE
    if not path.exists():
        return 0
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(json.loads(header["__metadata__"][checkpoint.STATE])["step"])


def test_a_training_killed_at_random_moments_ends_with_the_bytes_of_an_uninterrupted_one(
    processes: ForkServerContext, tiny_model: Path, whole: Path, tmp_path: Path
) -> None:
    chance = random.Random(4)
    for kill in range(1, KILLS + 1):
        process = begin(processes, fit_and_die, tiny_model, tmp_path)
        kill_when(process, has_done(tmp_path, kill * STEPS // (KILLS + 2)), after_s=chance.uniform(0, 0.05))
    assert steps_done(tmp_path) >= STEPS // 2
    assert ended(begin(processes, fit_and_die, tiny_model, tmp_path)) == 0
    same(whole, tmp_path)


def has_done(out: Path, count: int) -> Callable[[], bool]:
    return lambda: steps_done(out) >= count


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_training_killed_where_it_writes_ends_with_the_bytes_of_an_uninterrupted_one(
    processes: ForkServerContext, tiny_model: Path, whole: Path, tmp_path: Path, moment: str
) -> None:
    assert ended(begin(processes, fit_and_die, tiny_model, tmp_path, moment)) == -signal.SIGKILL
    assert not (tmp_path / "report.json").exists()
    assert steps_done(tmp_path) > 0
    assert ended(begin(processes, fit_and_die, tiny_model, tmp_path)) == 0
    same(whole, tmp_path)
