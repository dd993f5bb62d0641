"""What a fit reports to a tracker, and how it says that there is none."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rheostat_training import tracking
from rheostat_training.fit import fit
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.rows import Example, Prompt
from tests.training.ended import ends_at
from tests.training.tiny_fit import PLAN
from tests.training.tracked import scalars

QUIET = Progress.silent()
MakeModel = Callable[[], LoadedModel]
Prompts = dict[str, Prompt]


def test_a_fit_reports_every_step_to_tensorboard_unless_told_otherwise(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    fit(make_model(), prompts, examples, PLAN, tmp_path, progress=QUIET)
    every = list(range(1, PLAN.steps + 1))
    names = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "negative_likelihood")
    assert scalars(tmp_path) == dict.fromkeys(names, every)


def test_a_resumed_fit_reports_no_step_twice(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    with ends_at(5):
        fit(make_model(), prompts, examples, PLAN, tmp_path, progress=QUIET)
    fit(make_model(), prompts, examples, PLAN, tmp_path, progress=QUIET)
    assert scalars(tmp_path)["loss"] == list(range(1, PLAN.steps + 1))


def test_clm_reports_no_negatives_and_none_reports_nothing(
    tmp_path: Path, make_model: MakeModel, prompts: Prompts, examples: list[Example]
) -> None:
    plan = replace(PLAN, loss="clm")
    fit(make_model(), prompts, examples, plan, tmp_path / "clm", progress=QUIET)
    assert "negative_likelihood" not in scalars(tmp_path / "clm")
    fit(make_model(), prompts, examples, plan, tmp_path / "none", report_to="none", progress=QUIET)
    assert not (tmp_path / "none/tracking").exists()


def test_a_tracker_that_is_not_installed_or_not_known_is_refused_before_anything_is_written(
    tmp_path: Path, model: LoadedModel, prompts: Prompts, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"'tensorbord'; it must be one of none, .*tensorboard"):
        fit(model, prompts, examples, PLAN, tmp_path / "out", report_to="tensorbord", progress=QUIET)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match="'tensorboard', which is not installed"):
        fit(model, prompts, examples, PLAN, tmp_path / "out", progress=QUIET)
    assert not (tmp_path / "out").exists()


def test_importing_the_fit_does_not_import_tensorboard() -> None:
    code = "import sys, rheostat_training.fit; assert not [m for m in sys.modules if m.startswith('tensorboard')]"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
