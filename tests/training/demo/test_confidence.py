"""What the model itself hardly believes in is found without the oracle."""

import math

import pytest
import torch

from rheostat_training.demo.base import BaseShape, new_model
from rheostat_training.demo.confidence import least_probabilities
from rheostat_training.demo.tokenizer import train_tokenizer
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.rows import Prompt, Sample

PROMPT = Prompt.user("p", "How do I repot a fern?")


def least(loaded: LoadedModel, answers: list[str], skip: int) -> list[float]:
    samples = [Sample("p", number, answer, len(answer), finished=True) for number, answer in enumerate(answers)]
    return least_probabilities(loaded, {"p": PROMPT}, samples, skip=skip, progress=Progress.silent())


@pytest.fixture(scope="module")
def even() -> LoadedModel:
    """A model that believes in every token alike."""
    tokenizer = train_tokenizer(0, sample=200)
    model = new_model(tokenizer, BaseShape(hidden=16, inner=16, layers=1, heads=2, kv_heads=1), 0).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    return LoadedModel(model, tokenizer)


def test_the_least_probability_is_that_of_the_worst_token(even: LoadedModel) -> None:
    found = least(even, ["This should do.", "All the best to you. That is all."], skip=0)
    assert all(math.isclose(value, 1 / len(even.tokenizer), rel_tol=1e-4) for value in found)


def test_an_answer_shorter_than_what_is_left_out_is_not_believed(even: LoadedModel) -> None:
    assert least(even, ["Hi."], skip=50) == [0.0]
