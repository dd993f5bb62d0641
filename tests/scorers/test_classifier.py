"""Classifiers as scorers: each scale on a real model, both dials by heads, what cannot be judged, and the digest."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import BloomConfig, BloomForSequenceClassification, dynamic_module_utils

from rheostat_server import demo
from rheostat_server.scorers import UNJUDGED, Dialogue, Reads
from rheostat_server.scorers.classifier import Classifier
from rheostat_server.scorers.classifier_scorer import ClassifierScorer, load_classifier
from rheostat_server.scorers.spec import ScorerSpec
from rheostat_server.scorers.spec.classifier import ClassifierSpec
from rheostat_training.score import ScorerPair, load_scorer
from tests.scorers.tiny_models import (
    ANSWERS,
    DIALOGUES,
    LONGEST,
    QUESTION,
    build_classifier,
    build_reward,
    raw_outputs,
)

THREE = ("safe", "rude", "harmful")
ODD_CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification
Path("{mark}").touch()
class OddConfig(BertConfig):
    model_type = "odd"
class OddModel(BertForSequenceClassification):
    config_class = OddConfig
"""


def loaded(model: Path, **fields: Any) -> ClassifierScorer:
    spec = TypeAdapter[Any](ScorerSpec).validate_python({"kind": "classifier", "model": str(model), **fields})
    assert isinstance(spec, ClassifierSpec)
    return load_classifier(spec)


def levels(scorer: ClassifierScorer, dial: str = "safety") -> list[float]:
    found = [getattr(scores, dial) for scores in scorer.scores(DIALOGUES)]
    assert all(level is not None for level in found)
    return found


def test_one_logit_is_read_by_the_sigmoid_unless_said_otherwise(tmp_path: Path) -> None:
    model = build_classifier(tmp_path)
    raw = [raw_outputs(model, dialogue) for dialogue in DIALOGUES]
    scorer = loaded(model, dial="helpfulness")
    assert levels(scorer, "helpfulness") == pytest.approx([torch.sigmoid(row)[0].item() for row in raw], abs=1e-6)
    assert len({round(row[0].item(), 3) for row in raw}) == len(raw)
    assert scorer.card.dials == ("helpfulness",)
    assert all(scores.safety is None for scores in scorer.scores(DIALOGUES))


def test_softmax_of_the_safe_labels_and_inverted_of_the_harmful_are_one(tmp_path: Path) -> None:
    model = build_classifier(tmp_path, THREE)
    wanted = [torch.softmax(raw_outputs(model, dialogue), -1)[0].item() for dialogue in DIALOGUES]
    safe = loaded(model, dial="safety", label="safe", scale="softmax")
    harmful = loaded(model, dial="safety", label=["rude", 2], scale="softmax", invert=True)
    assert levels(safe) == pytest.approx(wanted, abs=1e-6)
    assert levels(harmful) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "scale",
    [{"low": -1, "high": 1}, {"mean": 0.5, "spread": 2}, {"quantiles": [-2, -1, 0, 0.5, 2]}, "sigmoid"],
    ids=str,
)
def test_raw_scores_are_normalised_as_stated(tmp_path: Path, scale: Any) -> None:
    model = build_classifier(tmp_path, THREE)
    scorer = loaded(model, dial="safety", label="rude", scale=scale)
    [gauge] = scorer.gauges.values()
    wanted = [gauge.level(raw_outputs(model, dialogue).tolist()) for dialogue in DIALOGUES]
    assert gauge.columns == (1,)
    assert levels(scorer) == pytest.approx(wanted, abs=1e-5)


def test_one_model_judges_both_dials_by_its_heads(tmp_path: Path) -> None:
    model = build_classifier(tmp_path, ("helpful", "toxic"))
    heads = {"helpfulness": "helpful", "safety": {"label": "toxic", "scale": {"low": -3, "high": 3}, "invert": True}}
    scorer = loaded(model, heads=heads, scale="sigmoid")
    assert scorer.card.dials == ("safety", "helpfulness")
    for dialogue, scores in zip(DIALOGUES, scorer.scores(DIALOGUES), strict=True):
        helpful, toxic = raw_outputs(model, dialogue).tolist()
        assert scores.helpfulness == pytest.approx(1 / (1 + math.exp(-helpful)), abs=1e-6)
        assert scores.safety == pytest.approx(min(1, max(0, 1 - (toxic + 3) / 6)), abs=1e-6)


def test_heads_that_read_one_output_alike_are_refused(tmp_path: Path) -> None:
    model = build_classifier(tmp_path, THREE)
    with pytest.raises(ValueError, match="heads read one output for safety and helpfulness alike"):
        loaded(model, heads={"safety": "rude", "helpfulness": 1}, scale="sigmoid")


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_levels_do_not_depend_on_the_batch_and_come_in_their_order(tmp_path: Path, rows: int) -> None:
    model = build_classifier(tmp_path)
    alone = [raw_outputs(model, dialogue)[0].item() for dialogue in DIALOGUES]
    found = levels(loaded(model, dial="safety", batch_rows=rows))
    assert found == pytest.approx([1 / (1 + math.exp(-raw)) for raw in alone], abs=1e-5)


def test_training_and_serving_give_identical_levels() -> None:
    folders = {dial: demo.bundle_folder() / "scorers" / dial for dial in ("safety", "helpfulness")}
    asked = [Dialogue(QUESTION, answer) for answer in (*ANSWERS, " ")]
    trained = ScorerPair.load(folders["safety"], folders["helpfulness"]).judge(asked)
    for dial, folder in folders.items():
        served = loaded(folder, dial=dial).scores(asked)
        assert [getattr(scores, dial) for scores in served] == [getattr(scores, dial) for scores in trained]
    assert trained[-1] == UNJUDGED


def test_an_empty_answer_cannot_be_judged(tmp_path: Path) -> None:
    scorer = loaded(build_classifier(tmp_path), dial="safety")
    empty, full, blank = scorer.scores([Dialogue(QUESTION, ""), DIALOGUES[0], Dialogue(QUESTION, " \n")])
    assert empty == blank == UNJUDGED
    assert full == scorer.scores([DIALOGUES[0]])[0]
    assert scorer.scores([]) == []


def test_logits_that_are_no_numbers_are_no_levels_in_serving_and_in_training(tmp_path: Path) -> None:
    model = build_classifier(tmp_path)
    scorer = loaded(model, dial="safety")
    with torch.no_grad():
        scorer.classifier.model.classifier.bias.fill_(math.nan)
    assert scorer.scores(DIALOGUES) == [UNJUDGED] * len(DIALOGUES)
    assert scorer.classifier.levels(DIALOGUES) == [None] * len(DIALOGUES)


def test_a_conversation_that_the_chat_template_refuses_is_not_judged_and_holds_up_no_other(tmp_path: Path) -> None:
    scorer = loaded(build_classifier(tmp_path, chat=True), dial="safety")
    refused = Dialogue(({"role": "system", "content": "now"}, *QUESTION), "yes")
    first, second, third = scorer.scores([DIALOGUES[0], refused, DIALOGUES[1]])
    assert second == UNJUDGED
    assert [first, third] == [scorer.scores([dialogue])[0] for dialogue in DIALOGUES[:2]]


def test_a_long_dialogue_is_cut_on_the_left_so_that_the_answer_stays(tmp_path: Path) -> None:
    model = build_classifier(tmp_path, chat=True)
    long = tuple({"role": role, "content": "how do i dry"} for role in ("user", "assistant") * 20)
    classifier = Classifier.load(model)
    [row] = classifier._read([Dialogue((*long, *QUESTION), "yes sure step")])
    assert row is not None
    assert len(row[0]) == LONGEST
    assert classifier.tokenizer.decode(row[0]).endswith("[CLS] yes sure step [SEP]")
    shorter = Classifier.load(model, max_tokens=16)
    assert [len(read[0]) for read in shorter._read([Dialogue(long, "yes")]) if read] == [16]


def test_a_model_of_single_texts_reads_the_answer_alone(tmp_path: Path) -> None:
    model = build_classifier(tmp_path)
    alone, pair = (Classifier.load(model, reads=reads) for reads in ("answer", "pair"))
    other = Dialogue(({"role": "user", "content": "no never"},), ANSWERS[0])
    assert alone.outputs([other]) == alone.outputs([DIALOGUES[0]])
    assert pair.outputs([other]) != pair.outputs([DIALOGUES[0]])


READS: list[Reads] = ["chat", "pair", "answer"]


@pytest.mark.parametrize("reads", READS)
def test_an_answer_is_read_whole_or_not_at_all(tmp_path: Path, reads: Reads) -> None:
    """By the words of the longest one that is read, and of the shortest that is not."""
    classifier = Classifier.load(build_classifier(tmp_path, chat=True), reads=reads)
    rows = classifier._read([Dialogue(QUESTION, "step " * words) for words in range(1, LONGEST + 1)])
    read = [words for words, row in enumerate(rows, start=1) if row is not None]
    assert read == [*range(1, len(read) + 1)]
    assert LONGEST - 5 <= len(read) < LONGEST
    step = classifier.tokenizer.convert_tokens_to_ids("step")
    assert [row[0].count(step) for row in rows if row is not None] == read
    assert classifier.levels([Dialogue(QUESTION, "step " * words) for words in (len(read), len(read) + 1)])[1] is None


@pytest.mark.parametrize("reads", READS)
def test_a_part_of_a_long_answer_is_judged_where_the_operator_asks_for_it(tmp_path: Path, reads: Reads) -> None:
    model = build_classifier(tmp_path, chat=True)
    long = Dialogue(QUESTION, "yes " + "step " * LONGEST + "sure")
    part = {"label": 0, "scale": "sigmoid", "dial": "safety", "reads": reads}
    assert loaded(model, **part).scores([long]) == [UNJUDGED]
    judged = loaded(model, **part, cut_answers=True)
    assert judged.scores([long])[0].safety is not None
    [row] = judged.classifier._read([long])
    assert row is not None
    assert len(row[0]) == LONGEST
    words = judged.classifier.tokenizer.decode(row[0]).split()
    assert ("yes" in words, "sure" in words) == ((False, True) if reads == "chat" else (True, False))
    assert judged.card.digest != loaded(model, **part).card.digest


def test_a_chat_template_that_is_not_there_is_not_read_by(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no chat template; give pair or answer"):
        loaded(build_classifier(tmp_path), dial="safety", reads="chat")


def test_a_reward_model_is_loaded_as_it_is_stored_or_in_the_dtype_that_is_given(tmp_path: Path) -> None:
    model = build_reward(tmp_path)
    stored = loaded(model, dial="helpfulness", scale={"mean": 0, "spread": 2})
    assert stored.classifier.model.dtype == torch.bfloat16
    exact = loaded(model, dial="helpfulness", scale={"mean": 0, "spread": 2}, dtype="float32")
    assert levels(exact, "helpfulness") == pytest.approx(levels(stored, "helpfulness"), abs=0.02)
    assert stored.card.digest != exact.card.digest


def test_the_digest_is_of_files_and_of_what_makes_levels_of_them(tmp_path: Path) -> None:
    model = build_classifier(tmp_path / "one", THREE)
    same = build_classifier(tmp_path / "two", THREE)
    plain = {"dial": "safety", "label": "safe", "scale": "softmax"}
    first = loaded(model, **plain).card.digest
    assert loaded(same, **{**plain, "label": 0, "name": "other", "weight": 3.0, "batch_rows": 2}).card.digest == first
    others = [
        loaded(model, **{**plain, "label": "rude"}),
        loaded(model, **{**plain, "invert": True}),
        loaded(model, **{**plain, "scale": {"low": 0, "high": 1}}),
        loaded(model, **{**plain, "scale": {"low": 0, "high": 2}}),
        loaded(model, **{**plain, "reads": "answer"}),
        loaded(model, **{**plain, "max_tokens": 16}),
        loaded(build_classifier(tmp_path / "three", THREE, seed=4), **plain),
    ]
    assert len({first, *(scorer.card.digest for scorer in others)}) == 8


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    model = build_classifier(tmp_path)
    weights = Classifier.load(model).model.state_dict()
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        loaded(model, dial="safety")


def test_a_model_that_does_not_tell_how_much_it_reads_wants_to_be_told(tmp_path: Path) -> None:
    model = build_classifier(tmp_path, tokens=10**30)
    assert loaded(model, dial="safety").classifier.longest == LONGEST
    without = BloomConfig(vocab_size=32, hidden_size=16, n_layer=1, n_head=2, num_labels=1, pad_token_id=0)
    BloomForSequenceClassification(without).save_pretrained(model)
    with pytest.raises(ValueError, match="max_tokens is not given, and neither model nor tokenizer tell"):
        loaded(model, dial="safety")
    assert len(levels(loaded(model, dial="safety", max_tokens=16))) == len(DIALOGUES)


def test_a_models_own_code_is_run_only_where_the_operator_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    model = build_classifier(tmp_path / "odd")
    (model / "odd.py").write_text(ODD_CODE.format(mark=tmp_path / "mark"))
    config = json.loads((model / "config.json").read_text())
    named = {"AutoConfig": "odd.OddConfig", "AutoModelForSequenceClassification": "odd.OddModel"}
    (model / "config.json").write_text(json.dumps({**config, "model_type": "odd", "auto_map": named}))
    with pytest.raises(ValueError, match="trust_remote_code"):
        loaded(model, dial="safety")
    assert not (tmp_path / "mark").exists()
    trusted = loaded(model, dial="safety", trust_remote_code=True)
    assert (tmp_path / "mark").exists()
    assert len(levels(trusted)) == len(DIALOGUES)
    (model / "odd.py").write_text((model / "odd.py").read_text() + "\n")
    assert loaded(model, dial="safety", trust_remote_code=True).card.digest != trusted.card.digest


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    there = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"device is 'cuda:{there}', and torch sees {there} CUDA devices"):
        loaded(build_classifier(tmp_path), dial="safety", device=f"cuda:{there}")


def test_training_refuses_a_model_of_several_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 3 labels; a scorer has 1"):
        load_scorer(build_classifier(tmp_path, THREE))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_judges_as_the_cpu_does(tmp_path: Path) -> None:
    model = build_classifier(tmp_path)
    on_gpu = loaded(model, dial="safety", device="cuda")
    assert levels(on_gpu) == pytest.approx(levels(loaded(model, dial="safety")), abs=1e-4)
    assert on_gpu.card.digest == loaded(model, dial="safety").card.digest
