"""The operator's file: what it may say, how refusals name field, value and what would be right, and the presets."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rheostat_server.scorers.build import read_scorers
from rheostat_server.scorers.presets import PRESETS
from rheostat_server.scorers.scales import Gauge, Head, Linear
from rheostat_server.scorers.spec.classifier import ClassifierSpec
from rheostat_server.scorers.spec.common import ScorersError, name_of_model
from rheostat_server.scorers.spec.text import RefusalSpec

SAFETY = {"kind": "classifier", "model": "m", "dial": "safety"}
OUTPUTS = {
    "skywork-reward-v2": ["LABEL_0"],
    "openassistant-reward": ["LABEL_0"],
    "toxic-bert": ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"],
    "koala-text-moderation": ["H", "H2", "HR", "OK", "S", "S3", "SH", "V", "V2"],
    "protectai-rejection": ["NORMAL", "REJECTION"],
}
"""The outputs of each preset's model, as its card or its config.json names them."""


def read(folder: Path, *scorers: Any) -> Any:
    path = folder / "scorers.yaml"
    path.write_text(yaml.safe_dump({"scorers": list(scorers)}))
    return read_scorers(path).scorers


def test_a_file_is_read_into_specs(tmp_path: Path) -> None:
    (tmp_path / "scorers.yaml").write_text(
        """
        scorers:
          - {kind: classifier, model: /models/safety-reward, dial: safety, scale: {low: -4, high: 2.5}, max_batch: 8}
          - {kind: refusal, model: out/refusal/scorer, weight: 0.5}
          - kind: classifier
            model: example/two-heads
            heads: {safety: {label: toxic, invert: true}, helpfulness: 1}
            scale: sigmoid
        """
    )
    first, second, third = read_scorers(tmp_path / "scorers.yaml").scorers
    assert isinstance(first, ClassifierSpec)
    assert first.judged == {"safety": Head((), Linear(low=-4, high=2.5))}
    assert first.limits.batch == 8
    assert isinstance(second, RefusalSpec)
    assert (second.dial, second.title, second.weight) == ("helpfulness", "refusal/scorer", 0.5)
    assert isinstance(third, ClassifierSpec)
    assert third.judged == {
        "safety": Head(("toxic",), "sigmoid", invert=True),
        "helpfulness": Head((1,), "sigmoid"),
    }


@pytest.mark.parametrize(
    ("scorer", "told"),
    [
        (
            {**SAFETY, "kind": "clasifier"},
            r"scorers.0: Input tag 'clasifier' .* expected tags: 'classifier', 'guard'",
        ),
        ({**SAFETY, "lable": 1}, r"scorers.0.lable: Extra inputs are not permitted; it is 1"),
        ({**SAFETY, "dial": "safty"}, r"scorers.0.dial: Input should be 'safety' or 'helpfulness'; it is 'safty'"),
        ({"kind": "classifier", "model": "m"}, r"scorers.0: give dial, safety or helpfulness"),
        ({**SAFETY, "heads": {"safety": 0, "helpfulness": 1}}, r"scorers.0: give dial, .* or heads for one of both"),
        ({"kind": "classifier", "model": "m", "heads": {"safety": 0}}, r"heads name safety; name both dials"),
        (
            {"kind": "classifier", "model": "m", "label": 0, "heads": {"safety": 0, "helpfulness": 1}},
            r"scorers.0: label is 0 beside heads; give each head its own label",
        ),
        ({**SAFETY, "label": True}, r"scorers.0.label: an output is named by its index or its name.*; it is True"),
        ({**SAFETY, "label": []}, r"scorers.0.label: an output is named by .*; it is \[\]"),
        ({**SAFETY, "label": [1, -1]}, r"scorers.0.label: an output is named by .*; it is \[1, -1\]"),
        (
            {**SAFETY, "scale": "tanh"},
            r"scorers.0.scale: a scale is one of sigmoid, softmax, \{low, high\}, .*\{quantiles\}; it is 'tanh'",
        ),
        ({**SAFETY, "scale": {"min": 0}}, r"scorers.0.scale: a scale is one of .*; it is \{'min': 0\}"),
        ({**SAFETY, "scale": {"low": 2, "high": 2}}, r"scorers.0.scale: low is 2 and high 2; low must be below high"),
        ({**SAFETY, "scale": {"low": 2}}, r"scorers.0.scale.high: Field required"),
        ({**SAFETY, "scale": {"low": 2, "mean": 1}}, r"scorers.0.scale.mean: Extra inputs are not permitted"),
        ({**SAFETY, "scale": {"mean": 1, "spread": 0}}, r"scorers.0.scale.spread: .* greater than 0; it is 0"),
        ({**SAFETY, "scale": {"quantiles": [1, 3, 2]}}, r"scorers.0.scale: quantiles hold 2 after 3; they must ascend"),
        ({**SAFETY, "scale": {"quantiles": [1, 1]}}, r"scorers.0.scale: quantiles are all 1; they must differ"),
        ({**SAFETY, "scale": {"quantiles": [1]}}, r"scorers.0.scale.quantiles: List should have at least 2 items"),
        ({**SAFETY, "scale": {"low": 0, "high": float("inf")}}, r"scorers.0.scale.high: .* finite number; it is inf"),
        ({**SAFETY, "reads": "question"}, r"scorers.0.reads: Input should be 'chat', 'pair' or 'answer'"),
        ({**SAFETY, "device": "gpu"}, r"scorers.0.device: .*; it is 'gpu'"),
        ({**SAFETY, "dtype": "int8"}, r"scorers.0.dtype: .*; it is 'int8'"),
        ({**SAFETY, "max_tokens": 2}, r"scorers.0.max_tokens: .* greater than or equal to 16; it is 2"),
        ({**SAFETY, "trust_remote_code": "yes"}, r"scorers.0.trust_remote_code: Input should be a valid boolean"),
        ({**SAFETY, "weight": 0}, r"scorers.0.weight: .* greater than 0; it is 0"),
        ({**SAFETY, "name": "-x"}, r"scorers.0.name: .*; it is '-x'"),
        ({"kind": "preference", "model": "m"}, r"scorers.0.dial: Field required"),
        ({"kind": "refusal", "model": "m", "invert": True}, r"scorers.0.invert: Extra inputs are not permitted"),
        ({"kind": "classifier", "preset": "skywork"}, r"preset is 'skywork'; known presets: skywork-reward-v2, "),
        ({"kind": "classifier", "preset": ["toxic-bert"]}, r"preset is \['toxic-bert'\]; known presets"),
        (
            {"kind": "classifier", "preset": "skywork-reward-v2"},
            r"leaves scale to be given: A raw Bradley-Terry reward",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_field_and_value(tmp_path: Path, scorer: Any, told: str) -> None:
    with pytest.raises(ScorersError, match=told):
        read(tmp_path, scorer)


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ScorersError) as caught:
        read(tmp_path, {**SAFETY, "device": "gpu"}, SAFETY, {**SAFETY, "weight": -1})
    assert "scorers.0.device" in str(caught.value)
    assert "scorers.2.weight" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "scorers: []", "scorers: {kind: classifier}", "scorers: [", "\udce4"])
def test_a_file_that_is_none_of_scorers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "scorers.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ScorersError, match=r"the scorers' file .*scorers\.yaml (does not fit|cannot be read)"):
        read_scorers(tmp_path / "scorers.yaml")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScorersError, match=r"none\.yaml cannot be read"):
        read_scorers(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_whole_spec_that_fits_its_model_and_names_a_licence(tmp_path: Path, name: str) -> None:
    preset = PRESETS[name]
    given = {"scale": {"mean": 8, "spread": 6}} if "scale" in preset.open else {}
    [spec] = read(tmp_path, {"kind": "classifier", "preset": name, **given})
    assert spec.model == preset.settings["model"]
    assert spec.dial in ("safety", "helpfulness")
    assert preset.licence
    assert preset.note
    [head] = spec.judged.values()
    assert Gauge.of(head, OUTPUTS[name]).columns
    assert not spec.trust_remote_code


def test_fields_of_ones_own_go_before_a_presets(tmp_path: Path) -> None:
    mine = {
        "kind": "classifier",
        "preset": "openassistant-reward",
        "model": "/models/mine",
        "scale": {"low": -6, "high": 6},
    }
    [spec] = read(tmp_path, mine)
    assert (spec.model, spec.revision, spec.reads) == ("/models/mine", None, "pair")
    assert spec.scale == Linear(low=-6, high=6)
    [theirs] = read(tmp_path, {"kind": "classifier", "preset": "openassistant-reward"})
    assert theirs.revision == "refs/pr/3"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Skywork/Skywork-Reward-V2-Qwen3-0.6B", "Skywork/Skywork-Reward-V2-Qwen3-0.6B"),
        ("/models/safety-reward", "models/safety-reward"),
        ("~/out/harmless/scorer/", "harmless/scorer"),
        ("../scorer", "scorer"),
        ("/a/größe", "a/gr--e"),
        ("/a/" + "x" * 99, "x" * 64),
        ("..", "scorer"),
    ],
)
def test_a_scorer_without_a_name_goes_by_its_models(model: str, name: str) -> None:
    assert name_of_model(model) == name
    assert ClassifierSpec(kind="classifier", model=model, dial="safety", name=name).title == name
