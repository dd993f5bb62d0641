"""Which words and pairs of words a scorer of real text is to count, found in the texts that it is trained on."""

from collections.abc import Sequence

from rheostat_server.scorers.text.ngrams import Ngrams, counter, cut

FEWEST_ROWS = 2


def fit_ngrams(texts: Sequence[str], *, opening: int) -> Ngrams:
    """Terms are words and pairs of words that at least FEWEST_ROWS of the texts have.

    Raises:
        ValueError: no two texts share a word.
    """
    whole, start = (counter(fewest_rows=FEWEST_ROWS).fit(part) for part in (texts, cut(texts, opening)))
    return Ngrams(whole, start, opening)
