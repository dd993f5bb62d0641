"""Refusal and preference scorers made by training, served: the level of each dial, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from rheostat_server.scorers import UNJUDGED, Dialogue
from rheostat_server.scorers.spec.text import PreferenceSpec, RefusalSpec
from rheostat_server.scorers.text.encoder import Encoder
from rheostat_server.scorers.text.features import FeaturePlan, answer_texts, read_material
from rheostat_server.scorers.text.folder import NGRAMS_FILE, TextScorerKind
from rheostat_server.scorers.text.head import Head
from rheostat_server.scorers.text.served import ServedTextScorer, load_text_scorer
from rheostat_server.scorers.text.text_scorer import TextScorer
from rheostat_training.score import load_scorer
from rheostat_training.scorers.ngrams_fit import fit_ngrams
from rheostat_training.scorers.save import save_text_scorer
from tests.scorers.tiny_models import DIALOGUES, QUESTION, SPECIAL, WORDS

OUTPUTS: dict[TextScorerKind, int] = {"refusal": 3, "preference": 1}


def build_text_scorer(folder: Path, kind: TextScorerKind) -> Path:
    """A scorer of random weights, written by training."""
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=len(SPECIAL) + len(WORDS), **size)).eval()
    words = {word: at for at, word in enumerate((*SPECIAL, *WORDS))}
    encoder = Encoder(model, BertTokenizerFast(vocab=words, model_max_length=64))
    plan = FeaturePlan(layers=1)
    ngrams = fit_ngrams([*answer_texts(DIALOGUES), "no step", "fast now"], opening=plan.opening_characters)
    columns = read_material(encoder, DIALOGUES, plan).columns(ngrams).shape[1]
    weight = np.random.default_rng(0).normal(size=(OUTPUTS[kind], columns))
    save_text_scorer(TextScorer(kind, encoder, Head(ngrams, weight, np.zeros(OUTPUTS[kind])), plan), folder)
    return folder


def served(folder: Path, kind: TextScorerKind, **fields: Any) -> ServedTextScorer:
    if kind == "refusal":
        return load_text_scorer(RefusalSpec(kind="refusal", model=str(folder), **fields))
    return load_text_scorer(PreferenceSpec(kind="preference", model=str(folder), **fields))


def levels(scorer: ServedTextScorer, dialogues: Sequence[Dialogue] = DIALOGUES) -> list[float | None]:
    [dial] = scorer.card.dials
    return [scores.level(dial) for scores in scorer.scores(dialogues)]


def test_for_helpfulness_a_refusal_scorer_tells_what_is_not_refused_and_for_safety_what_is(tmp_path: Path) -> None:
    folder = build_text_scorer(tmp_path, "refusal")
    refused = [*load_scorer(folder).levels(DIALOGUES)]
    helpful, safe = served(folder, "refusal"), served(folder, "refusal", dial="safety")
    assert helpful.card.dials == ("helpfulness",)
    assert levels(helpful) == [1 - level for level in refused if level is not None]
    assert levels(safe) == refused
    assert len(set(refused)) == len(DIALOGUES)
    assert all(scores.safety is None for scores in helpful.scores(DIALOGUES))
    assert helpful.card.digest != safe.card.digest


@pytest.mark.parametrize("dial", ["safety", "helpfulness"])
def test_a_preference_scorer_gives_the_level_that_training_sees(tmp_path: Path, dial: Any) -> None:
    folder = build_text_scorer(tmp_path, "preference")
    assert levels(served(folder, "preference", dial=dial)) == [*load_scorer(folder).levels(DIALOGUES)]


def test_an_empty_answer_and_a_broken_head_cannot_be_judged(tmp_path: Path) -> None:
    scorer = served(build_text_scorer(tmp_path, "refusal"), "refusal")
    empty, full = scorer.scores([Dialogue(QUESTION, " "), DIALOGUES[0]])
    assert empty == UNJUDGED
    assert full.helpfulness is not None
    assert scorer.scores([]) == []
    scorer.scorer.head.bias[:] = np.nan
    assert scorer.scores(DIALOGUES) == [UNJUDGED] * len(DIALOGUES)


def test_the_digest_is_of_encoder_and_head(tmp_path: Path) -> None:
    folder = build_text_scorer(tmp_path, "refusal")
    before = served(folder, "refusal").card.digest
    assert served(folder, "refusal", name="another", batch_rows=1).card.digest == before
    config = folder / "encoder" / "tokenizer_config.json"
    config.write_text(config.read_text() + "\n")
    assert served(folder, "refusal").card.digest != before


def test_a_folder_of_another_kind_or_with_a_part_missing_is_refused(tmp_path: Path) -> None:
    folder = build_text_scorer(tmp_path, "preference")
    with pytest.raises(ValueError, match=r"holds a scorer of kind preference; kind refusal takes what `rheostat train"):
        served(folder, "refusal")
    (folder / NGRAMS_FILE).unlink()
    with pytest.raises(ValueError, match=r"has scorer\.json and no ngrams\.json; train the scorer again"):
        served(folder, "preference", dial="safety")
