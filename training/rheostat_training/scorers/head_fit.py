"""Fits of a linear head on human labels, by scikit-learn's logistic regression."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import diags, vstack
from sklearn.linear_model import LogisticRegression

from rheostat_server.scorers.text.features import Material, Matrix
from rheostat_server.scorers.text.head import Head
from rheostat_server.scorers.text.ngrams import Ngrams
from rheostat_server.scorers.text.phrases import PHRASE_FEATURES

MOST_STEPS = 3000


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """`inverse_penalty` is scikit-learn's C; the other two weigh vectors and phrases against each count of n-grams."""

    inverse_penalty: float
    vector_weight: float
    phrase_weight: float

    def __post_init__(self) -> None:
        for name in ("inverse_penalty", "vector_weight", "phrase_weight"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


def fit_refusal_head(material: Material, labels: Sequence[int], ngrams: Ngrams, plan: HeadPlan, *, seed: int) -> Head:
    """Multinomial logistic regression of the three classes.

    Raises:
        ValueError: a class has no row.
    """
    kinds = sorted(set(labels))
    if kinds != [0, 1, 2]:
        raise ValueError(
            f"the rows have classes {kinds}; full compliance 0, full and partial refusal 1 and 2 are needed"
        )
    columns = material.columns(ngrams)
    scale = _scale(material.dense, columns.shape[1], plan)
    model = LogisticRegression(C=plan.inverse_penalty, max_iter=MOST_STEPS, random_state=seed)
    model.fit(columns @ diags(scale), labels)
    return Head(ngrams, model.coef_ * scale, np.asarray(model.intercept_, np.float64))


def fit_preference_head(chosen: Material, rejected: Material, ngrams: Ngrams, plan: HeadPlan, *, seed: int) -> Head:
    """Bradley-Terry: P(chosen is preferred) = σ(r(chosen) − r(rejected)) with a linear reward r.

    The bias puts the mean reward of the answers fitted on at logit 0, so that levels lie around 0.5.
    """
    better, worse = chosen.columns(ngrams), rejected.columns(ngrams)
    scale = _scale(np.concatenate([chosen.dense, rejected.dense]), better.shape[1], plan)
    gaps = (better - worse) @ diags(scale)
    model = LogisticRegression(C=plan.inverse_penalty, fit_intercept=False, max_iter=MOST_STEPS, random_state=seed)
    model.fit(vstack([gaps, -gaps]), np.repeat([1, 0], gaps.shape[0]))
    weight = model.coef_ * scale
    middle = np.asarray(vstack([better, worse]).mean(0)).ravel()
    return Head(ngrams, weight, -weight @ middle)


def _scale(dense: Matrix, columns: int, plan: HeadPlan) -> Matrix:
    """For n-grams 1; for a vector or phrases their weight over the column's deviation and the root of their number.

    So a block weighs the same however wide it is.
    """
    deviation = dense.std(0)
    vectors = len(deviation) - PHRASE_FEATURES
    weights = np.full_like(deviation, plan.vector_weight / np.sqrt(vectors))
    weights[vectors:] = plan.phrase_weight / np.sqrt(PHRASE_FEATURES)
    scale = np.ones(columns)
    scale[: len(deviation)] = np.divide(weights, deviation, out=np.zeros_like(deviation), where=deviation > 1e-9)
    return scale
