"""QLoRA: the base in four bits, the adapter as ever. bitsandbytes runs on the CPU too."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rheostat_training import models
from rheostat_training.fit import fit
from rheostat_training.fit_plan import LossName
from rheostat_training.models import LoadedModel, load_base
from rheostat_training.progress import Progress
from rheostat_training.rows import Example, Prompt
from rheostat_training.training_set import Positive, build_training_set
from tests.training.architectures import Architecture
from tests.training.conftest import row_means
from tests.training.tiny_fit import PLAN

Prompts = dict[str, Prompt]


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A base whose layers are as wide as a block of four-bit weights."""
    Architecture("llama").build(tiny_model, tmp_path / "base")
    return tmp_path / "base"


def the_rows(base: LoadedModel, prompts: Prompts, examples: list[Example]) -> list[Positive]:
    return build_training_set(base, prompts, examples, negative_distance=0)


def test_a_base_in_four_bits_is_an_eighth_of_its_linear_weights_and_near_what_it_was(
    folder: Path, prompts: Prompts, examples: list[Example]
) -> None:
    whole, small = load_base(folder), load_base(folder, quantize="nf4")
    layer = [base.model.model.layers[0].mlp.down_proj.weight for base in (whole, small)]
    assert layer[1].nbytes == layer[0].nbytes / 8
    rows = [item.row for item in the_rows(whole, prompts, examples)]
    assert row_means(small.model, rows) == pytest.approx(row_means(whole.model, rows), abs=0.6)
    assert row_means(small.model, rows) != row_means(whole.model, rows)


@pytest.mark.parametrize("loss", ["exmate", "dpo"])
def test_an_adapter_is_trained_on_a_base_in_four_bits_that_has_answered_before(
    folder: Path, tmp_path: Path, prompts: Prompts, examples: list[Example], loss: LossName
) -> None:
    base = load_base(folder, quantize="nf4")
    before = base.digest()
    rows = the_rows(base, prompts, examples)
    untrained = -sum(row_means(base.model, [item.row for item in rows])) / len(rows)
    plan = replace(PLAN, loss=loss, steps=30, learning_rate=3e-2, dropout=0.0)
    report = fit(base, prompts, examples, plan, tmp_path / "out", report_to="none", progress=Progress.silent())
    assert base.digest() == before
    assert report.final_loss < (untrained - 1 if loss == "exmate" else 0.3)
    names = load_file(tmp_path / "out/adapter/adapter_model.safetensors")
    assert len(names) == 2 * 2 * 7


def test_four_bits_without_bitsandbytes_are_refused_with_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes: pip install '\.\[qlora\]'"):
        load_base(folder, quantize="nf4")
