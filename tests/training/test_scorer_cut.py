"""Rows cut short: so many of them as asked for, behind any of their tokens, the same again for a seed."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from transformers import CanineTokenizer

from rheostat_training.models import LoadedModel
from rheostat_training.scorer_cut import Cuts, cut_rows
from rheostat_training.scorer_fit import ScorerRow
from tests.training.test_scorers import QUESTION

LONG = "you can start with herbs and beans because they grow fast and need little water or care"
ROWS = [ScorerRow(QUESTION, LONG, (0.25, 0.75))] * 3000


def ids_of(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_the_share_is_cut_behind_any_token_and_the_rest_stays_whole(model: LoadedModel) -> None:
    cut = cut_rows(ROWS, model.tokenizer, Cuts(share=0.6, least_tokens=4), seed=0)
    whole = ids_of(model.tokenizer, LONG)
    found = [ids_of(model.tokenizer, row.answer) for row in cut]
    assert all(ids == whole[: len(ids)] for ids in found)
    counts = Counter(map(len, found))
    assert counts.pop(len(whole)) == pytest.approx(0.4 * len(ROWS), rel=0.1)
    assert {*counts} == {*range(4, len(whole))}
    expected = 0.6 * len(ROWS) / len(counts)
    assert max(abs(count - expected) for count in counts.values()) < 0.5 * expected


def test_a_cut_changes_nothing_but_the_answer(model: LoadedModel) -> None:
    rows = [replace(row, level=number / 100) for number, row in enumerate(ROWS[:100])]
    cut = cut_rows(rows, model.tokenizer, Cuts(share=1.0), seed=0)
    assert [replace(row, answer=LONG) for row in cut] == rows
    assert all(LONG.startswith(row.answer) and len(row.answer) < len(LONG) for row in cut)
    assert cut_rows(rows, model.tokenizer, Cuts(share=0.0), seed=0) == rows


def test_a_seed_cuts_the_same_again_and_another_elsewhere(model: LoadedModel) -> None:
    first, again, other = (cut_rows(ROWS[:50], model.tokenizer, Cuts(), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_an_answer_that_is_as_short_as_the_shortest_cut_stays_whole(model: LoadedModel) -> None:
    short = ScorerRow(QUESTION, "yes it is", 1.0)
    least = len(ids_of(model.tokenizer, short.answer))
    for kept in (least, least + 5):
        assert cut_rows([short] * 50, model.tokenizer, Cuts(share=1.0, least_tokens=kept), seed=0) == [short] * 50


def test_no_letter_is_cut_in_pieces(model: LoadedModel) -> None:
    row = ScorerRow(QUESTION, "naïve Grüße, 温かい 🌿🌿", 1.0)
    assert len(ids_of(model.tokenizer, row.answer)) > len(row.answer)
    for cut in cut_rows([row] * 200, model.tokenizer, Cuts(share=1.0), seed=0):
        assert row.answer.startswith(cut.answer)


def test_a_tokenizer_that_does_not_tell_where_its_tokens_end_is_refused() -> None:
    with pytest.raises(ValueError, match="CanineTokenizer does not tell where its tokens end"):
        cut_rows(ROWS[:3], CanineTokenizer(), Cuts(), seed=0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"share": 1.1}, r"share is 1\.1"), ({"share": -0.1}, "share is"), ({"least_tokens": 0}, "least_tokens is 0")],
)
def test_cuts_that_cannot_be_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Cuts(**wrong)
