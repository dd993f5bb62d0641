"""Which words and pairs of words a text has, weighted by how rare they are (TF-IDF), saved without a pickle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer

WORD = r"(?u)\b\w+\b"


@dataclass(frozen=True, slots=True, eq=False)
class Ngrams:
    """Two counts of one text: of all of it, and of its first `opening` characters, where refusals are said."""

    whole: TfidfVectorizer
    start: TfidfVectorizer
    opening: int

    @classmethod
    def of(cls, terms: dict[str, list[str]], rarity: dict[str, NDArray[np.float64]], *, opening: int) -> "Ngrams":
        """What `terms` and `rarity` of another told, built again."""
        whole, start = (_known(terms[count], rarity[count]) for count in ("whole", "start"))
        return cls(whole, start, opening)

    @property
    def terms(self) -> dict[str, list[str]]:
        """The terms of each count in the order of their columns."""
        return {count: found.get_feature_names_out().tolist() for count, found in self._counts.items()}

    @property
    def rarity(self) -> dict[str, NDArray[np.float64]]:
        """The inverse document frequency of each term."""
        return {count: np.asarray(found.idf_, np.float64) for count, found in self._counts.items()}

    @property
    def _counts(self) -> dict[str, TfidfVectorizer]:
        return {"whole": self.whole, "start": self.start}

    def matrix(self, texts: Sequence[str]) -> Any:
        """Sparse [texts, terms of both counts]; each count of a text has length 1."""
        counts: list[Any] = [self.whole.transform(texts), self.start.transform(cut(texts, self.opening))]
        return hstack(counts, format="csr")


def cut(texts: Sequence[str], opening: int) -> list[str]:
    return [text[:opening] for text in texts]


def counter(terms: Sequence[str] | None = None, *, fewest_rows: int = 1) -> TfidfVectorizer:
    """Counts words and pairs of words: `terms`, or those that at least `fewest_rows` texts have when it is fitted."""
    return TfidfVectorizer(
        lowercase=False, ngram_range=(1, 2), token_pattern=WORD, min_df=fewest_rows, sublinear_tf=True, vocabulary=terms
    )


def _known(terms: Sequence[str], rarity: NDArray[np.float64]) -> TfidfVectorizer:
    found = counter(terms)
    found.idf_ = rarity
    return found
