"""The linear head of a scorer: its n-grams, one matrix and one vector."""

from dataclasses import dataclass

import numpy as np

from rheostat_server.scorers.text.features import Material, Matrix
from rheostat_server.scorers.text.ngrams import Ngrams


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """logits = columns · weightᵀ + bias; weight [outputs, columns], bias [outputs]."""

    ngrams: Ngrams
    weight: Matrix
    bias: Matrix

    def logits(self, material: Material) -> Matrix:
        """[rows, outputs]."""
        found: Matrix = material.columns(self.ngrams) @ self.weight.T + self.bias
        return found


def probabilities(logits: Matrix) -> Matrix:
    """Softmax over the last axis."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    found: Matrix = raised / raised.sum(-1, keepdims=True)
    return found
