"""What a server reads has the permissions of any new file, since it may run as another user."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import zeros

from rheostat_training.demo.base import BasePlan, BaseShape, fit_base
from rheostat_training.demo.tokenizer import train_tokenizer
from rheostat_training.export import export_adapter, merge_adapter
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.scorer_fit import fit_scorer
from tests.tiny import TinyAdapter
from tests.training.test_export import facts
from tests.training.test_scorers import PLAN, rows_of_two_kinds
from tests.training.tiny_fit import tiny_fit

QUIET = Progress.silent()


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """The group may read, others may not."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def permissions(folder: Path) -> set[int]:
    """Those of the weights and of the files beside them."""
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {path.suffix for path in files} >= {".safetensors", ".json"}
    return {stat.S_IMODE(path.stat().st_mode) for path in files}


def test_safetensors_alone_writes_for_the_owner_alone(tmp_path: Path) -> None:
    save_file({"a": zeros(1)}, tmp_path / "a.safetensors")
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o600


def test_an_adapter_as_fitted(tiny_model: Path, tmp_path: Path) -> None:
    tiny_fit(tiny_model, tmp_path)
    assert permissions(tmp_path / "adapter") == {0o640}


def test_an_adapter_as_exported_and_as_merged(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tmp_path: Path
) -> None:
    export_adapter(tiny_adapters[0].folder, tiny_model, tmp_path / "out", facts())
    assert permissions(tmp_path / "out") == {0o640}
    merge_adapter(tiny_model, tmp_path / "out", tmp_path / "merged")
    assert permissions(tmp_path / "merged") == {0o640}


def test_a_scorer(model: LoadedModel, tmp_path: Path) -> None:
    fit_scorer(rows_of_two_kinds(60), model.tokenizer, PLAN, tmp_path, progress=QUIET)
    assert permissions(tmp_path / "model") == {0o640}


def test_the_base_model_of_the_demo(tmp_path: Path) -> None:
    plan = BasePlan(BaseShape(hidden=32, inner=64, layers=1, heads=2, kv_heads=1), steps=1, rows=2)
    fit_base(train_tokenizer(0, sample=300), plan, tmp_path, progress=QUIET)
    assert permissions(tmp_path) == {0o640}
