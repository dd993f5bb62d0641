"""A scorer of real text: it says how much an answer refuses, or how well people would like it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from safetensors.numpy import load_file

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.text.encoder import BATCH_TEXTS, Encoder
from rheostat_server.scorers.text.features import FeaturePlan, Matrix, read_material
from rheostat_server.scorers.text.folder import (
    ENCODER_FOLDER,
    HEAD_FILE,
    NGRAMS_FILE,
    REFUSAL_CLASSES,
    SCHEMA_VERSION,
    SCORER_FILE,
    TextScorerKind,
)
from rheostat_server.scorers.text.head import Head, probabilities
from rheostat_server.scorers.text.ngrams import Ngrams

HOW_MUCH_REFUSED = np.array([0.0, 1.0, 0.5])


@dataclass(frozen=True, slots=True)
class TextScorer:
    """Judges dialogues; `levels` are in [0, 1].

    A refusal scorer's level is how much is refused, P(full refusal) + ½ P(partial refusal): 0 full compliance, 1 full
    refusal. A preference scorer's level is σ(reward), 0.5 for a middling answer of the data it was fitted on.
    """

    kind: TextScorerKind
    encoder: Encoder
    head: Head
    plan: FeaturePlan

    @classmethod
    def load(cls, folder: Path, *, batch_rows: int = BATCH_TEXTS, device: str = "cpu") -> "TextScorer":
        """Raises ValueError where the folder's file is of another schema or kind, or does not fit its weights."""
        facts = json.loads((folder / SCORER_FILE).read_text())
        if facts["schema_version"] != SCHEMA_VERSION or facts["kind"] not in get_args(TextScorerKind):
            found = f"schema_version {facts['schema_version']} and kind {facts['kind']!r}"
            known = f"{SCHEMA_VERSION} with {' or '.join(get_args(TextScorerKind))}"
            raise ValueError(f"{folder / SCORER_FILE} has {found}; known are {known}: train the scorer again")
        plan = FeaturePlan(**facts["features"])
        encoder = Encoder.load(folder / ENCODER_FOLDER, batch_rows=batch_rows, device=device)
        return cls(facts["kind"], encoder, _load_head(folder, opening=plan.opening_characters), plan)

    def logits(self, dialogues: Sequence[Dialogue]) -> Matrix:
        """[dialogues, 3] of a refusal scorer, [dialogues, 1] of a preference scorer."""
        if not dialogues:
            return np.zeros((0, len(self.head.bias)))
        return self.head.logits(read_material(self.encoder, dialogues, self.plan))

    def classes(self, dialogues: Sequence[Dialogue]) -> list[str]:
        """The likeliest of REFUSAL_CLASSES of each.

        Raises:
            ValueError: a preference scorer has no classes.
        """
        if self.kind != "refusal":
            raise ValueError(f"a {self.kind} scorer has no classes; ask for levels")
        return [REFUSAL_CLASSES[at] for at in self.logits(dialogues).argmax(1)]

    def levels(self, dialogues: Sequence[Dialogue]) -> list[float]:
        return levels_of(self.kind, self.logits(dialogues))


def levels_of(kind: TextScorerKind, logits: Matrix) -> list[float]:
    """Levels in [0, 1] of a head's logits."""
    if kind == "refusal":
        found: list[float] = (probabilities(logits) @ HOW_MUCH_REFUSED).tolist()
        return found
    return [float(level) for level in 1 / (1 + np.exp(-np.clip(logits[:, 0], -60, 60)))]


def _load_head(folder: Path, *, opening: int) -> Head:
    weights = {name: values.astype(np.float64) for name, values in load_file(folder / HEAD_FILE).items()}
    terms = json.loads((folder / NGRAMS_FILE).read_text())
    ngrams = Ngrams.of(terms, {count: weights[f"rarity.{count}"] for count in terms}, opening=opening)
    return Head(ngrams, weights["weight"], weights["bias"])
