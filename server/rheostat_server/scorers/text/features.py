"""What a scorer's head reads of a dialogue: the encoder's vector of the answer, phrases, and n-grams."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.text.encoder import Encoder
from rheostat_server.scorers.text.ngrams import Ngrams
from rheostat_server.scorers.text.phrases import phrase_features, spelled_out

Matrix = NDArray[np.float64]
FEWEST = {"layers": 1, "answer_tokens": 4, "opening_characters": 20}


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """How much of the encoder is used, how many tokens of the answer it reads, and how long an answer's opening is."""

    layers: int
    answer_tokens: int = 64
    opening_characters: int = 300

    def __post_init__(self) -> None:
        for name, fewest in FEWEST.items():
            if getattr(self, name) < fewest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {fewest}")


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What is known of dialogues before anything is fitted: `dense` [rows, width + phrases], and the answers' words."""

    dense: Matrix
    texts: list[str]

    def take(self, at: Sequence[int]) -> "Material":
        return Material(self.dense[list(at)], [self.texts[row] for row in at])

    def columns(self, ngrams: Ngrams) -> Any:
        """Sparse [rows, width + phrases + n-grams], what a head is applied to."""
        return hstack([csr_matrix(self.dense), ngrams.matrix(self.texts)], format="csr")


def dense_features(
    encoder: Encoder, dialogues: Sequence[Dialogue], plan: FeaturePlan, *, told: Callable[[int], object] | None = None
) -> Matrix:
    """[dialogues, width + phrases]. The encoder reads the answer alone; phrases see the last user message too.

    `told` is called with how many more dialogues are done.
    """
    answers = [dialogue.answer for dialogue in dialogues]
    vectors = encoder.vectors(answers, max_tokens=plan.answer_tokens, told=told)
    phrases = phrase_features([dialogue.question for dialogue in dialogues], answers)
    return np.concatenate([vectors, phrases], axis=1).astype(np.float64)


def read_material(encoder: Encoder, dialogues: Sequence[Dialogue], plan: FeaturePlan) -> Material:
    """Material of dialogues, encoded now."""
    return Material(dense_features(encoder, dialogues, plan), answer_texts(dialogues))


def answer_texts(dialogues: Sequence[Dialogue]) -> list[str]:
    """Answers as n-grams are counted in them: lower case, contractions written out."""
    return [spelled_out(dialogue.answer) for dialogue in dialogues]
