"""What a scorer reads: a conversation and its answer, by the scorer's own chat template, or as a pair of texts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rheostat_training.conditioning import token_ids
from rheostat_training.rows import Message


def dialogue_ids(
    tokenizer: Any, dialogues: Sequence[tuple[Sequence[Message], str]], *, max_length: int
) -> list[tuple[int, ...]]:
    """Ids of dialogues without control text, cut on the left so that the answer stays."""
    texts = [
        tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
        for messages, answer in dialogues
    ]
    return [ids[-max_length:] for ids in token_ids(tokenizer, texts)]


def pair_ids(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], *, max_length: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and token types of (question, answer), as cross-encoders read them; the longer of the two is cut first.

    Types are 0 throughout where the tokenizer has none.
    """
    if not pairs:
        return []
    questions, answers = zip(*pairs, strict=True)
    read = tokenizer([*questions], [*answers], truncation="longest_first", max_length=max_length)
    ids = read["input_ids"]
    types = read.get("token_type_ids") or [[0] * len(row) for row in ids]
    return [(tuple(row), tuple(kinds)) for row, kinds in zip(ids, types, strict=True)]


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, [rows, longest]."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask
