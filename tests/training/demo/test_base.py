"""The base model's training is the same whether or not it was cut off, and its batches are known by their number."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from rheostat_training import checkpoint
from rheostat_training.demo.base import BasePlan, BaseShape, fit_base, loss_of, rate_at
from rheostat_training.demo.batches import IGNORED, Batch, batches
from rheostat_training.demo.tokenizer import END, NUMBERS, train_tokenizer
from rheostat_training.progress import Progress

SHAPE = BaseShape(hidden=32, inner=64, layers=1, heads=2, kv_heads=1)
PLAN = BasePlan(SHAPE, steps=6, rows=2, warmup=2, checkpoint_every=2)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(0, sample=300)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_that_was_cut_off_ends_with_the_same_weights(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_base(tokenizer, PLAN, tmp_path / "whole", progress=Progress.silent())
    with monkeypatch.context() as patch:
        patch.setattr("rheostat_training.demo.base.loss_of", _failing_at(4))
        with pytest.raises(InterruptedError):
            fit_base(tokenizer, PLAN, tmp_path / "cut", progress=Progress.silent())
    assert (tmp_path / "cut" / checkpoint.FILE).exists()
    resumed = fit_base(tokenizer, PLAN, tmp_path / "cut", progress=Progress.silent())
    assert weights(resumed) == weights(whole)
    assert not (resumed / checkpoint.FILE).exists()


def test_batches_can_be_taken_up_at_any_number(tokenizer: PreTrainedTokenizerFast) -> None:
    from_start = list(islice(batches(tokenizer, seed=0, rows=2), 30))
    from_later = next(batches(tokenizer, seed=0, rows=2, first=27))
    assert torch.equal(from_start[27].inputs, from_later.inputs)


def test_only_what_the_assistant_says_is_a_target(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = next(batches(tokenizer, seed=0, rows=4))
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        said = str(tokenizer.decode(targets[targets != IGNORED]))
        assert said.endswith(END)
        assert "<|user|>" in tokenizer.decode(inputs)
        assert "<|user|>" not in said


def test_every_dial_value_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert all(len(tokenizer(number, add_special_tokens=False)["input_ids"]) == 1 for number in NUMBERS)


def test_the_rate_stays_and_then_falls_to_zero() -> None:
    plan = BasePlan(steps=200, cooldown=0.5, warmup=10)
    assert rate_at(0, plan) == pytest.approx(0.1)
    assert rate_at(99, plan) == 1.0
    assert rate_at(150, plan) == pytest.approx(0.5)
    assert rate_at(199, plan) < 0.01


def _failing_at(call: int) -> Callable[[LlamaForCausalLM, Batch], Tensor]:
    calls = iter(range(call))

    def failing(model: LlamaForCausalLM, batch: Batch) -> Tensor:
        if next(calls, None) is None:
            raise InterruptedError
        return loss_of(model, batch)

    return failing
