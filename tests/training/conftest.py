"""A random Llama that is small enough to train in a test, and a few prompts and answers for it."""

from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat_training.fit_plan import FitPlan
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Example, Prompt
from rheostat_training.step import row_logs
from rheostat_training.training_set import TrainingRow
from tests.training.killed import processes_with_everything_imported
from tests.training.tiny_fit import HIGH, LOW, tiny_examples, tiny_llama, tiny_prompts

__all__ = ["HIGH", "LOW", "row_means"]


def row_means(model: Any, rows: Sequence[TrainingRow]) -> list[float]:
    """ℓ(y|c) of each row."""
    logs, mask = row_logs(model, rows, FitPlan(dtype="float32"))
    means: list[float] = (logs.sum(1) / mask.sum(1)).tolist()
    return means


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    return processes_with_everything_imported()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_model(tiny_model: Path) -> Callable[[], LoadedModel]:
    """Makes the same random model each time."""
    return partial(tiny_llama, tiny_model)


@pytest.fixture
def model(make_model: Callable[[], LoadedModel]) -> LoadedModel:
    return make_model()


@pytest.fixture
def prompts() -> dict[str, Prompt]:
    return tiny_prompts()


@pytest.fixture
def examples() -> list[Example]:
    return tiny_examples()
