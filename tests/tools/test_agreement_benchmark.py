"""The logic of benchmarks.scorers agreement: thresholds, areas under curves, and the baseline of the better model."""

import numpy as np
import pytest
from benchmarks.scorer_agreement import Thresholds, aucs, best_thresholds, better_model
from sklearn.metrics import roc_auc_score

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.text.folder import REFUSAL_CLASSES
from rheostat_training.rows import Prompt
from rheostat_training.scorers.hold_out import Fold
from rheostat_training.scorers.labelled import PreferencePair

COMPLIES, REFUSES, PARTLY = (
    REFUSAL_CLASSES.index(name) for name in ("1_full_compliance", "2_full_refusal", "3_partial_refusal")
)


def test_thresholds_part_the_level_into_the_three_classes() -> None:
    found = Thresholds(0.2, 0.8).classes(np.array([0.1, 0.2, 0.79, 0.8, 1.0]))
    assert found.tolist() == [COMPLIES, PARTLY, PARTLY, REFUSES, REFUSES]


def test_the_thresholds_chosen_are_those_by_which_most_rows_are_right() -> None:
    refused, labels = np.array([0.05, 0.1, 0.4, 0.5, 0.9]), np.array([COMPLIES, COMPLIES, PARTLY, PARTLY, REFUSES])
    found = best_thresholds(refused, labels)
    assert found.classes(refused).tolist() == labels.tolist()
    assert best_thresholds(refused, np.full(5, REFUSES)).classes(refused).tolist() == [REFUSES] * 5


def test_areas_are_those_of_scikit_learn_by_model_with_partial_refusals_left_out() -> None:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 3, 60)
    levels = np.round(chance.random(60) * 0.8 + 0.2 * (labels == REFUSES), 1)
    models = ["one"] * 30 + ["two"] * 30
    found = aucs(levels, labels, [f"p{at % 20}" for at in range(60)], models, seed=0)
    for model, rows in (("one", slice(0, 30)), ("two", slice(30, 60))):
        kept = labels[rows] != PARTLY
        wanted = roc_auc_score(labels[rows][kept] == REFUSES, levels[rows][kept])
        assert found[model].value == pytest.approx(wanted)
        assert found[model].low < wanted < found[model].high
    assert found["mean"].value == pytest.approx((found["one"].value + found["two"].value) / 2)


def test_the_better_model_is_the_one_that_won_more_of_the_pairs_trained_on() -> None:
    asked = Prompt.user("", "how do I open the window").messages

    def pair(chosen: str, rejected: str) -> PreferencePair:
        return PreferencePair("", Dialogue(asked, "so"), Dialogue(asked, "thus"), (chosen, rejected))

    pairs = [
        pair("one", "two"),
        pair("one", "two"),
        pair("two", "one"),
        pair("one", "two"),
        pair("two", "one"),
        pair("new", "newer"),
    ]
    assert better_model(pairs, Fold("all", (0, 1, 2), (3, 4, 5))).tolist() == [1.0, 0.0, 0.5]
