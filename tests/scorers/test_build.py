"""From a file to scorers that answer: loaded by kind, batched, weighed; and every way in which that is refused."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from rheostat_server import packages
from rheostat_server.scorers.build import Weighed, load_scorers, read_scorers
from rheostat_server.scorers.spec.common import ScorersError
from tests.scorers.tiny_models import DIALOGUES, build_classifier


def load(folder: Path, *scorers: Any) -> list[Weighed]:
    path = folder / "scorers.yaml"
    path.write_text(yaml.safe_dump({"scorers": list(scorers)}))
    return load_scorers(read_scorers(path).scorers)


async def test_a_file_becomes_scorers_that_answer_in_order_with_their_weights(tmp_path: Path) -> None:
    one, two = (build_classifier(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two")))
    loaded = load(
        tmp_path,
        {"kind": "classifier", "model": str(one), "dial": "safety", "name": "careful"},
        {"kind": "classifier", "model": str(two), "dial": "helpfulness", "weight": 2, "max_batch": 2},
    )
    assert [(scorer.card.name, weight) for scorer, weight in loaded] == [
        ("careful", 1.0),
        (f"{tmp_path.name}/two", 2.0),
    ]
    safe, helpful = [await scorer.score(DIALOGUES) for scorer, _ in loaded]
    assert all(scores.safety is not None and scores.helpfulness is None for scores in safe)
    assert all(scores.helpfulness is not None and scores.safety is None for scores in helpful)
    for scorer, _ in loaded:
        await scorer.close()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": "nowhere"}, r"scorers\.0 \(classifier\): model is 'nowhere', which is no folder here and cannot"),
        ({"label": "toxic"}, r"scorers\.0 \(classifier\): label is 'toxic'; the model's outputs are LABEL_0 \(0\)"),
        ({"scale": "softmax"}, r"scorers\.0 \(classifier\): scale is softmax, and the model has one output"),
        ({"revision": "main"}, r"scorers\.0 \(classifier\): revision is 'main', and model '.*' is a folder"),
        ({"device": "cuda:99"}, r"scorers\.0 \(classifier\): device is 'cuda:99', and torch sees"),
        (
            {"kind": "refusal"},
            r"scorers\.0 \(refusal\): model is '.*', which holds no scorer of real text; kind",
        ),
    ],
)
def test_what_does_not_fit_its_model_is_refused_by_its_place_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], told: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = build_classifier(tmp_path / "model")
    spec = {"kind": "classifier", "model": str(model), "dial": "safety", **fields}
    with pytest.raises(ScorersError, match=told):
        load(tmp_path, spec)


def test_two_scorers_of_one_name_are_refused(tmp_path: Path) -> None:
    spec = {"kind": "classifier", "model": str(build_classifier(tmp_path / "model")), "dial": "safety"}
    with pytest.raises(ScorersError, match=r"scorers\.1 goes by the name '.*/model', as scorers\.0; give it a name"):
        load(tmp_path, spec, {**spec, "dial": "helpfulness"})


def test_a_package_that_is_missing_is_told_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "sklearn" else find_spec(name))
    with pytest.raises(ScorersError, match=r"sklearn is not installed: pip install '\.\[scorers\]'"):
        load(tmp_path, {"kind": "refusal", "model": str(tmp_path)})
