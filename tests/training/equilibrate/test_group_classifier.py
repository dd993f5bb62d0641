"""The classifier: its vectors, what is saved and loaded again, what a fit measures, what it reaches on real labels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rheostat_server.scorers.text.encoder import Encoder
from rheostat_training.equilibrate.fdc import classifier as group_classifier
from rheostat_training.equilibrate.fdc.classifier import (
    CLASSES,
    CLASSIFIER_FILE,
    GroupClassifier,
    LinearHead,
    prompt_vectors,
)
from rheostat_training.equilibrate.fdc.classifier_fit import GroupFitPlan, fit_groups, fit_head
from rheostat_training.equilibrate.fdc.figures import HeldOut, f1_scores, figures, macro_f1
from rheostat_training.equilibrate.fdc.group import Group
from rheostat_training.progress import Progress
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import Prompt
from rheostat_training.work_folder import NotOurs
from tests.training.equilibrate.scripted import prompts_of, tiny_encoder
from tests.training.shared_data import sentence_encoder, shared_data

QUIET = Progress.silent()
WORDS = {"EHD": "powder jar", "IHD": "hurt rival", "MHD": "hurt powder rival jar", "No risk": "bake bread"}
PLAN = GroupFitPlan(inverse_penalty=100.0, parts=3)


@pytest.fixture
def encoder(tmp_path: Path, tiny_model: Path) -> str:
    return tiny_encoder(tmp_path / "encoder", tiny_model)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"{words} {number}", "group": group} for number in range(9) for group, words in WORDS.items()
    ] + [{"prompt": "something else", "group": "OTHER"}]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def benign(tmp_path: Path) -> Path:
    rows = [{"prompt": f"stir the soup {number}"} for number in range(8)] + [{"prompt": "powder JAR 3"}]
    path = tmp_path / "benign.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_vector_is_the_mean_of_words_beside_the_mean_of_the_last_layer(encoder: str) -> None:
    loaded = Encoder.load(Path(encoder))
    texts = ["open the window", "a", "how do I open the window of the old house"]
    found = prompt_vectors(loaded, texts)
    assert found.shape == (3, 2 * loaded.width)
    assert np.allclose(np.linalg.norm(found.reshape(3, 2, -1), axis=2), 1, atol=1e-6)
    assert np.allclose(found[:, loaded.width :], loaded.vectors(texts, max_tokens=128), atol=1e-5)
    assert np.allclose(found[1:2], prompt_vectors(loaded, ["a"]), atol=1e-5)


def test_f1_is_that_of_the_definition_and_counts_repeat_rows() -> None:
    wanted, found = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 1, 1, 0, 3])
    scores = f1_scores(wanted, found)
    assert scores[:2].tolist() == [0.5, pytest.approx(2 / 3)]
    assert np.isnan(scores[2])
    assert macro_f1(wanted, found) == pytest.approx((0.5 + 2 / 3 + 1) / 3)
    counts = np.array([2, 1, 1, 1, 1, 1])
    assert macro_f1(wanted, found, counts) == macro_f1(np.r_[wanted, 0], np.r_[found, 0])


def test_a_fit_is_saved_and_loaded_to_the_same_answers(encoder: str, labels: Path, tmp_path: Path) -> None:
    report = fit_groups([labels], encoder, PLAN, tmp_path / "out", progress=QUIET)
    folder = tmp_path / "out" / "classifier"
    loaded = GroupClassifier.load(folder)
    assert set(load_file(folder / "head.safetensors")) == {"weight", "bias"}
    assert not list(folder.rglob("*.bin"))
    asked = prompts_of(**{str(number): f"{words} {number}" for number, words in enumerate(WORDS.values())})
    found = loaded.label(asked, tmp_path / "work", progress=QUIET)
    assert [row.group for row in found.rows] == [Group.EHD, Group.IHD, Group.MHD, Group.NONE]
    assert all(row.sure is not None and 0.25 < row.sure <= 1 for row in found.rows)
    assert report.left_out == {"OTHER": 1}
    assert report.figures.rows == 36
    assert report.figures.macro_f1.value > report.figures.majority.value


def test_a_labelling_by_shards_goes_on_where_it_was_killed(
    encoder: str, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_groups([labels], encoder, PLAN, tmp_path / "out", progress=QUIET)
    loaded = GroupClassifier.load(tmp_path / "out" / "classifier")
    monkeypatch.setattr(group_classifier, "SHARD_ROWS", 2)
    asked = [Prompt.user(str(number), f"hurt powder {number}") for number in range(5)]
    whole = loaded.label(asked, tmp_path / "a", progress=QUIET)
    (tmp_path / "a" / "00001.jsonl").unlink()
    first = (tmp_path / "a" / "00000.jsonl").stat().st_mtime_ns
    assert loaded.label(asked, tmp_path / "a", progress=QUIET) == whole
    assert (tmp_path / "a" / "00000.jsonl").stat().st_mtime_ns == first
    assert [row.id for row in whole.rows] == ["0", "1", "2", "3", "4"]


def test_a_second_fit_is_the_first_and_another_one_needs_another_folder(
    encoder: str, labels: Path, tmp_path: Path
) -> None:
    report = fit_groups([labels], encoder, PLAN, tmp_path / "out", progress=QUIET)
    assert fit_groups([labels], encoder, PLAN, tmp_path / "out", progress=QUIET) == report
    with pytest.raises(AnotherRun, match="plan"):
        fit_groups([labels], encoder, GroupFitPlan(parts=2), tmp_path / "out", progress=QUIET)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "classifier").write_text("mine")
    with pytest.raises(NotOurs, match="classifier"):
        fit_groups([labels], encoder, PLAN, tmp_path / "mine", progress=QUIET)


def test_benign_prompts_are_learned_and_measured_but_for_those_with_a_label(
    encoder: str, labels: Path, benign: Path, tmp_path: Path
) -> None:
    plain = fit_groups([labels], encoder, PLAN, tmp_path / "plain", progress=QUIET)
    report = fit_groups([labels], encoder, PLAN, tmp_path / "out", benign=[benign], progress=QUIET)
    assert plain.figures.benign is None
    assert report.benign_prompts == 8
    assert report.figures.benign == 1.0
    assert report.figures.rows == plain.figures.rows


def test_the_baseline_of_words_is_fitted_by_the_same_plan_and_benign_prompts(
    encoder: str, labels: Path, tmp_path: Path
) -> None:
    benign = tmp_path / "everyday.jsonl"
    benign.write_text("".join(json.dumps({"prompt": f"powder jar of tea {number}"}) + "\n" for number in range(9)))

    def by_words(plan: GroupFitPlan, *more: Path) -> float:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        return fit_groups([labels], encoder, plan, out, benign=more, progress=QUIET).figures.keywords.value

    plan = replace(PLAN, inverse_penalty=1.0)
    assert by_words(plan) == 1.0
    assert by_words(replace(plan, benign_weight=1e3), benign) < 0.8
    assert by_words(replace(plan, inverse_penalty=1e-9)) < 0.8


def test_equal_prompts_are_never_on_both_sides_of_a_part(encoder: str, tmp_path: Path) -> None:
    """Groups drawn at random can be found for a prompt that was seen, and for no other."""
    random = np.random.default_rng(1)
    rows = [{"prompt": f"window number {n * 37}", "group": str(random.choice(["EHD", "IHD"]))} for n in range(60)]
    rows += [{"prompt": f"jar {n} {group}", "group": group} for n in range(3) for group in ("MHD", "No risk")]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*rows, *rows]))
    report = fit_groups([path], encoder, GroupFitPlan(inverse_penalty=1e5), tmp_path / "out", progress=QUIET)
    hits = sum(report.figures.confusion[at][at] for at in (0, 1))
    assert hits < 0.65 * 120
    assert report.figures.prompts == 66


def test_figures_count_whole_prompts_and_tell_how_well_labels_agree() -> None:
    wanted = np.tile(np.array([0, 1, 2, 3, 1, 1]), 2)
    keys = [str(number % 6) for number in range(12)]
    found = figures(keys, wanted, HeldOut(wanted, np.ones_like(wanted), np.ones_like(wanted), None), seed=0)
    assert found.prompts == 6
    assert found.agreement == 1.0
    assert found.repeated_rows == 12
    assert found.macro_f1.low == found.macro_f1.value == found.macro_f1.high == 1.0
    assert found.margin.value == pytest.approx(1 - found.keywords.value, abs=1e-3)
    assert found.confusion[1] == [0, 6, 0, 0]


def test_a_group_without_rows_cannot_be_learned() -> None:
    with pytest.raises(ValueError, match="no row is of group MHD, none"):
        fit_head(np.eye(4), np.array([0, 1, 0, 1]), GroupFitPlan())


def test_rare_groups_weigh_more_the_more_they_are_balanced() -> None:
    vectors, wanted = np.zeros((40, 2)), np.array([1] * 37 + [0, 2, 3])
    chances = [
        fit_head(vectors, wanted, GroupFitPlan(balance=balance)).probabilities(vectors[:1])[0] for balance in (0, 1)
    ]
    assert chances[0][1] == pytest.approx(37 / 40, abs=0.01)
    assert chances[1] == pytest.approx([0.25] * 4, abs=0.01)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"schema_version": 9, "classes": [group.value for group in CLASSES]}, "schema_version 9"),
        ({"schema_version": 1, "classes": ["a"]}, "classes"),
        (None, "rheostat train groups fit"),
    ],
)
def test_a_folder_that_holds_no_classifier_of_ours_is_refused(tmp_path: Path, facts: object, told: str) -> None:
    if facts:
        (tmp_path / CLASSIFIER_FILE).write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=told):
        GroupClassifier.load(tmp_path)


def test_a_head_gives_probabilities() -> None:
    found = LinearHead(np.zeros((4, 3)), np.array([0.0, 1.0, 2.0, 3.0])).probabilities(np.zeros((2, 3)))
    assert np.allclose(found.sum(1), 1)
    assert found[0].argmax() == 3


def test_the_classifier_beats_both_baselines_on_held_back_rows_of_the_released_labels(tmp_path: Path) -> None:
    data = shared_data() / "fdc_beavertails.jsonl.gz"
    report = fit_groups([data], sentence_encoder(), GroupFitPlan(parts=5), tmp_path, progress=QUIET)
    found = report.figures
    assert found.rows == 1305
    assert report.left_out == {"OTHER": 209}
    assert found.macro_f1.low > found.keywords.high
    assert found.margin.low > 0.06
    assert found.macro_f1.low > found.majority.high + 0.2
    assert found.agreement is not None
    assert found.macro_f1.value < found.agreement < 0.75
