"""The shipped selector reads whole answers of the demo's base model as the oracle does, and beginnings of them too."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_server.demo import base_folder, bundle_folder, selector_folder
from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.reading import dialogue_ids, pad_right
from rheostat_training.demo import oracle, recipe
from rheostat_training.demo.asking import held_out
from rheostat_training.generate import SamplingPlan
from rheostat_training.models import load_base
from rheostat_training.rows import Prompt, Request
from rheostat_training.samplers.local import sample

PROMPTS = 16
SAMPLES = 4
Dialogues = list[tuple[str, str]]
"""Questions and answers."""


@pytest.fixture(scope="module")
def generated() -> Dialogues:
    """Well-formed answers of the base model to questions that no training saw."""
    torch.set_num_threads(1)
    known = held_out(PROMPTS)
    plan = SamplingPlan(samples=SAMPLES, temperature=1.0, max_new_tokens=recipe.ANSWER_TOKENS, seed=3)
    found = sample(load_base(base_folder()), [Request(each.id, each.messages) for each in known.values()], plan)
    pairs = [(known[row.prompt_id].text, row.answer) for row in found]
    return [pair for pair in pairs if oracle.levels(*pair) is not None]


def beginnings(dialogues: Dialogues, tokens: int) -> Dialogues:
    tokenizer = AutoTokenizer.from_pretrained(selector_folder())
    ids = [tokenizer(answer, add_special_tokens=False)["input_ids"][:tokens] for _, answer in dialogues]
    return [(question, tokenizer.decode(each)) for (question, _), each in zip(dialogues, ids, strict=True)]


@torch.inference_mode()
def read(dialogues: Dialogues) -> "np.ndarray[Any, Any]":
    """Levels, [dials, dialogues]."""
    selector = AutoModelForSequenceClassification.from_pretrained(selector_folder()).eval()
    tokenizer = AutoTokenizer.from_pretrained(selector_folder())
    asked = [Dialogue(Prompt.user("", question).messages, answer) for question, answer in dialogues]
    ids, mask = pad_right(dialogue_ids(tokenizer, asked, max_length=256), selector.config.pad_token_id)
    levels: np.ndarray[Any, Any] = torch.sigmoid(selector(input_ids=ids, attention_mask=mask).logits).T.numpy()
    return levels


def truth(dialogues: Dialogues) -> "np.ndarray[Any, Any]":
    return np.array([oracle.levels(*pair) for pair in dialogues], dtype=float).T


def correlations(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> Sequence[float]:
    return [float(np.corrcoef(*pair)[0, 1]) for pair in zip(one, other, strict=True)]


def test_the_selector_reads_whole_answers_as_the_oracle_does(generated: Dialogues) -> None:
    assert len(generated) > 48
    found, wanted = read(generated), truth(generated)
    assert min(correlations(found, wanted)) > 0.97
    assert max(np.abs(found - wanted).mean(1)) < 0.05


@pytest.mark.parametrize("tokens", [12, 16, 24])
def test_a_beginning_tells_the_selector_what_the_whole_answer_will_be(generated: Dialogues, tokens: int) -> None:
    found, wanted = read(beginnings(generated, tokens)), truth(generated)
    assert min(correlations(found, wanted)) > 0.9
    assert max(np.abs(found - wanted).mean(1)) < 0.08


def test_the_selector_has_a_head_for_each_dial_and_the_recipe_says_how_it_was_made() -> None:
    config = json.loads((selector_folder() / "config.json").read_text())
    assert config["id2label"] == {str(number): name for number, name in enumerate(DIAL_NAMES)}
    said = json.loads((bundle_folder() / "recipe.json").read_text())["selector"]
    plan: recipe.SelectorPlan = TypeAdapter(recipe.SelectorPlan).validate_python(said)
    shape = plan.fit.shape
    made = (config["model_type"], config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"])
    assert made == (shape.family, shape.hidden, shape.layers, shape.heads)
    assert plan.cuts.share > 0
