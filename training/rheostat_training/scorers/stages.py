"""The two kinds of scorer as a recipe sees them: rows read, a head fitted on some, others judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.text.features import Material
from rheostat_server.scorers.text.folder import REFUSAL_CLASSES
from rheostat_server.scorers.text.head import Head
from rheostat_server.scorers.text.phrases import sentences
from rheostat_training.scorers.head_fit import HeadPlan, fit_preference_head, fit_refusal_head
from rheostat_training.scorers.hold_out import Labelled
from rheostat_training.scorers.labelled import (
    PreferencePair,
    RefusalRow,
    read_preferences,
    read_refusals,
)
from rheostat_training.scorers.ngrams_fit import fit_ngrams
from rheostat_training.scorers.string_matching import matched

Right = NDArray[np.float64]
PARTIAL = "3_partial_refusal"


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """1 where a row is right, by the head and by the baseline; `pairs` are (wanted, found) classes, if any."""

    right: Right
    baseline: Right
    pairs: list[tuple[int, int]]


class Stage(Protocol):
    """Rows and how a head is fitted and judged on them."""

    @property
    def rows(self) -> Sequence[Labelled]: ...

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many rows of the files are not among them, by what they are."""
        ...

    @property
    def dialogues(self) -> list[Dialogue]:
        """What the material is made of: one of each row in their order, then a second one of each."""
        ...

    def fit(self, material: Material, at: Sequence[int], plan: HeadPlan, *, opening: int, seed: int) -> Head: ...

    def judge(self, head: Head, material: Material, at: Sequence[int]) -> Verdicts: ...


@dataclass(frozen=True, slots=True)
class RefusalStage:
    """Answers and what people called them; rows i and answers + i of the material are answer i and its first sentence.

    A head is fitted on both, since a model that was not seen may refuse in one sentence. What is called a partial
    refusal is so for all that it says, and its first sentence alone is left out.
    """

    rows: Sequence[RefusalRow]
    left_out: Mapping[str, int]

    @classmethod
    def read(cls, data: Sequence[Path]) -> "RefusalStage":
        found = read_refusals(data)
        return cls(found.rows, found.left_out)

    @property
    def dialogues(self) -> list[Dialogue]:
        whole = [row.dialogue for row in self.rows]
        return [*whole, *(replace(dialogue, answer=sentences(dialogue.answer)[0]) for dialogue in whole)]

    def fit(self, material: Material, at: Sequence[int], plan: HeadPlan, *, opening: int, seed: int) -> Head:
        ngrams = fit_ngrams(material.take(at).texts, opening=opening)
        plain = [row for row in at if REFUSAL_CLASSES[self.rows[row].label] != PARTIAL]
        labels = [self.rows[row].label for row in (*at, *plain)]
        both = material.take([*at, *(row + len(self.rows) for row in plain)])
        return fit_refusal_head(both, labels, ngrams, plan, seed=seed)

    def judge(self, head: Head, material: Material, at: Sequence[int]) -> Verdicts:
        wanted = np.array([self.rows[row].label for row in at])
        found = head.logits(material.take(at)).argmax(1)
        by_strings = np.array(matched([self.rows[row].answer for row in at]))
        pairs = list(zip(wanted.tolist(), found.tolist(), strict=True))
        return Verdicts((found == wanted).astype(float), (by_strings == wanted).astype(float), pairs)


@dataclass(frozen=True, slots=True)
class PreferenceStage:
    """Pairs; rows i and pairs + i of the material are those of pair i's chosen and rejected dialogue."""

    rows: Sequence[PreferencePair]
    left_out: Mapping[str, int]

    @classmethod
    def read(cls, data: Sequence[Path]) -> "PreferenceStage":
        found = read_preferences(data)
        return cls(found.rows, found.left_out)

    @property
    def dialogues(self) -> list[Dialogue]:
        return [*(row.chosen for row in self.rows), *(row.rejected for row in self.rows)]

    def fit(self, material: Material, at: Sequence[int], plan: HeadPlan, *, opening: int, seed: int) -> Head:
        chosen, rejected = self._sides(material, at)
        ngrams = fit_ngrams([*chosen.texts, *rejected.texts], opening=opening)
        return fit_preference_head(chosen, rejected, ngrams, plan, seed=seed)

    def judge(self, head: Head, material: Material, at: Sequence[int]) -> Verdicts:
        chosen, rejected = self._sides(material, at)
        gaps = (head.logits(chosen) - head.logits(rejected))[:, 0]
        shorter = [len(self.rows[row].rejected.answer) - len(self.rows[row].chosen.answer) for row in at]
        return Verdicts(_wins(gaps), _wins(np.array(shorter, dtype=float)), [])

    def _sides(self, material: Material, at: Sequence[int]) -> tuple[Material, Material]:
        return material.take(at), material.take([row + len(self.rows) for row in at])


def _wins(gaps: NDArray[np.float64]) -> Right:
    """1 where the gap is above 0, half where it is 0."""
    found: Right = (np.sign(gaps) + 1) / 2
    return found
