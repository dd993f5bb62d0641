"""What a scorer's model reads: conversation and answer by its own chat template, question and answer, or the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2.exceptions import TemplateError
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
    read = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [tuple(ids[-max_length:]) for ids in read]


def dialogue_ids(tokenizer: Any, dialogues: Sequence[Dialogue], *, max_length: int) -> list[tuple[int, ...]]:
    """Ids of dialogues without control text, by the chat template."""
    return chat_ids(tokenizer, [chat_text(tokenizer, dialogue) for dialogue in dialogues], max_length=max_length)


@dataclass(frozen=True, slots=True)
class Reader:
    """Writes dialogues in a model's `form`, in at most `longest` tokens.

    Of what is longer the conversation is cut and not the answer: one that does not fit whole is not read, or but in
    part with `cut_answers`.
    """

    tokenizer: Any
    form: Reads
    longest: int
    cut_answers: bool = False

    def rows(self, dialogues: Sequence[Dialogue]) -> list[Row | None]:
        """One for each dialogue; None where it is not read, or the chat template refuses the conversation."""
        if not dialogues:
            return []
        rows = self._chats(dialogues) if self.form == "chat" else self._texts(dialogues)
        return [
            row if row is None or len(row[0]) < self.longest else self._cut(dialogue, row)
            for dialogue, row in zip(dialogues, rows, strict=True)
        ]

    def _chats(self, dialogues: Sequence[Dialogue]) -> list[Row | None]:
        texts = [_text_or_none(self.tokenizer, dialogue) for dialogue in dialogues]
        written = chat_ids(self.tokenizer, [text for text in texts if text is not None], max_length=self.longest)
        ids = iter(written)
        return [None if text is None else _untyped(next(ids)) for text in texts]

    def _texts(self, dialogues: Sequence[Dialogue], truncation: str = "longest_first") -> Sequence[Row | None]:
        """(Question, answer), as cross-encoders read them, or the answer alone."""
        answers = [dialogue.answer for dialogue in dialogues]
        texts = [[dialogue.question for dialogue in dialogues], answers] if self.form == "pair" else [answers]
        read = self.tokenizer(*texts, truncation=truncation, max_length=self.longest)
        ids = read["input_ids"]
        types = read.get("token_type_ids") or [[0] * len(row) for row in ids]
        return [(tuple(row), tuple(kinds)) for row, kinds in zip(ids, types, strict=True)]

    def _cut(self, dialogue: Dialogue, row: Row) -> Row | None:
        """In the place of a row that fills the window, of which something may be cut."""
        if not self._fits(dialogue):
            return row if self.cut_answers else None
        return self._texts([dialogue], "only_first")[0] if self.form == "pair" else row

    def _fits(self, dialogue: Dialogue) -> bool:
        """Whether the answer does, with what the model has to read beside it: of a pair, a token of the question."""
        if self.form == "chat":
            text = chat_text(self.tokenizer, dialogue)
            tail, beside = text[max(0, text.rfind(dialogue.answer.strip())) :], 0
        else:
            is_pair = self.form == "pair"
            tail, beside = dialogue.answer, self.tokenizer.num_special_tokens_to_add(pair=is_pair) + is_pair
        return len(self.tokenizer(tail, add_special_tokens=False, verbose=False)["input_ids"]) + beside <= self.longest


def _text_or_none(tokenizer: Any, dialogue: Dialogue) -> str | None:
    """None where the chat template refuses the conversation, such as one with a system message."""
    try:
        return chat_text(tokenizer, dialogue)
    except TemplateError:
        return None


def _untyped(ids: tuple[int, ...]) -> Row:
    return ids, (0,) * len(ids)


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, [rows, longest]."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask
