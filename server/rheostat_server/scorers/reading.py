"""What a scorer's model reads: conversation and answer by its own chat template, question and answer, or the answer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rheostat_server.scorers import Dialogue, Reads

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids and their types; types are 0 throughout where the tokenizer has none."""


def reads_by_default(tokenizer: Any) -> Reads:
    """A model with a chat template reads by it; one without, as most cross-encoders, reads a pair of texts."""
    return "pair" if tokenizer.chat_template is None else "chat"


def chat_text(tokenizer: Any, dialogue: Dialogue) -> str:
    """The dialogue as the chat template writes it; what it raises for conversations that it refuses passes through."""
    turns = [*dialogue.messages, {"role": "assistant", "content": dialogue.answer}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    return text


def chat_ids(tokenizer: Any, texts: Sequence[str], *, max_length: int) -> list[tuple[int, ...]]:
    """Ids of what a chat template wrote, which holds every special token; cut on the left so that the answer stays."""
    if not texts:
        return []
    read = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [tuple(ids[-max_length:]) for ids in read]


def dialogue_ids(tokenizer: Any, dialogues: Sequence[Dialogue], *, max_length: int) -> list[tuple[int, ...]]:
    """Ids of dialogues without control text, by the chat template."""
    return chat_ids(tokenizer, [chat_text(tokenizer, dialogue) for dialogue in dialogues], max_length=max_length)


def pair_ids(tokenizer: Any, dialogues: Sequence[Dialogue], *, max_length: int) -> list[Row]:
    """(Question, answer), as cross-encoders read them; the longer of the two is cut first."""
    if not dialogues:
        return []
    questions, answers = zip(*((dialogue.question, dialogue.answer) for dialogue in dialogues), strict=True)
    return _rows(tokenizer([*questions], [*answers], truncation="longest_first", max_length=max_length))


def answer_ids(tokenizer: Any, dialogues: Sequence[Dialogue], *, max_length: int) -> list[Row]:
    """The answers alone, as models of single texts read them; the end of a long one is cut."""
    if not dialogues:
        return []
    return _rows(tokenizer([dialogue.answer for dialogue in dialogues], truncation=True, max_length=max_length))


def _rows(read: Any) -> list[Row]:
    ids = read["input_ids"]
    types = read.get("token_type_ids") or [[0] * len(row) for row in ids]
    return [(tuple(row), tuple(kinds)) for row, kinds in zip(ids, types, strict=True)]


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, [rows, longest]."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask
