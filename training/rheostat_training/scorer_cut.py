"""Cuts answers of a scorer's rows short, so that it learns to tell from a beginning where an answer is going.

A scorer that has only met whole answers takes a beginning for a whole one that says little. One that judges candidates
while they are being generated should have met beginnings too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from rheostat_training.scorer_fit import ScorerRow


@dataclass(frozen=True, slots=True)
class Cuts:
    """The share of rows that are cut, and the fewest of its own tokens that an answer keeps."""

    share: float = 0.6
    least_tokens: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be from 0 to 1")
        if self.least_tokens < 1:
            raise ValueError(f"least_tokens is {self.least_tokens}; it must be at least 1")


def cut_rows(rows: Sequence[ScorerRow], tokenizer: Any, cuts: Cuts, *, seed: int) -> list[ScorerRow]:
    """The rows in their order, some of them cut behind one of their tokens, each as likely as another.

    A level stays that of the whole answer; an answer of no more than `least_tokens` stays whole.

    Raises:
        ValueError: the tokenizer does not tell where in a text its tokens end.
    """
    random = Random(f"cuts {seed}")
    chosen = [place for place in range(len(rows)) if random.random() < cuts.share]
    result = list(rows)
    for place, ends in zip(chosen, _token_ends(tokenizer, [rows[place].answer for place in chosen]), strict=True):
        if len(ends) > cuts.least_tokens:
            kept = random.randrange(cuts.least_tokens, len(ends))
            result[place] = replace(rows[place], answer=rows[place].answer[: ends[kept - 1]])
    return result


def _token_ends(tokenizer: Any, answers: Sequence[str]) -> list[list[int]]:
    """The place behind each token of each answer, in characters."""
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} does not tell where its tokens end; a fast tokenizer does")
    if not answers:
        return []
    found = tokenizer([*answers], add_special_tokens=False, return_offsets_mapping=True)
    return [[end for _, end in spans] for spans in found["offset_mapping"]]
