"""What a scorer reads: the conversation and its answer as the scorer tokenizer's own chat template writes them."""

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


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, [rows, longest]."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask
