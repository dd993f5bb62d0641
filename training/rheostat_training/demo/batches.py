"""Token batches of the corpus: pools of dialogues cut into batches of like length, each known by its number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rheostat_training.demo.corpus import Dialogue, dialogues
from rheostat_training.rows import Message

IGNORED: Final = -100
BATCHES_PER_POOL: Final = 24
WIDTH_STEP: Final = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """inputs and targets [rows, time]; a target is the next token of an assistant's message, or `IGNORED`."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """One dialogue as ids, and which of them the assistant says."""

    ids: list[int]
    said: list[bool]


def batches(tokenizer: PreTrainedTokenizerFast, *, seed: int, rows: int, first: int = 0) -> Iterator[Batch]:
    """The endless stream of batches from number `first` on."""
    pool = first // BATCHES_PER_POOL
    skip = first % BATCHES_PER_POOL
    while True:
        yield from _pool(tokenizer, seed, pool, rows)[skip:]
        pool, skip = pool + 1, 0


def tokenise(tokenizer: PreTrainedTokenizerFast, batch: Sequence[Dialogue]) -> list[Tokens]:
    """Each message apart, as a model sees it: what the assistant says ends in the end token."""
    texts = [text for dialogue in batch for message in dialogue.messages for text in _parts(message)]
    ids = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    return [_tokens(dialogue, ids) for dialogue in batch]


def _parts(message: Message) -> tuple[str, str]:
    return f"<|{message['role']}|>", f"{message['content']}<|end|>"


def _tokens(dialogue: Dialogue, ids: Iterator[list[int]]) -> Tokens:
    tokens = Tokens([], [])
    for message in dialogue.messages:
        role, content = next(ids), next(ids)
        tokens.ids.extend((*role, *content))
        tokens.said.extend([False] * len(role) + [message["role"] == "assistant"] * len(content))
    return tokens


def _pool(tokenizer: PreTrainedTokenizerFast, seed: int, pool: int, rows: int) -> list[Batch]:
    tokens = tokenise(tokenizer, list(dialogues(seed, pool, rows * BATCHES_PER_POOL)))
    tokens.sort(key=lambda each: len(each.ids))
    cut = [_batch(tokens[i : i + rows]) for i in range(0, len(tokens), rows)]
    Random(f"pool {seed} {pool}").shuffle(cut)
    return cut


def _batch(tokens: Sequence[Tokens]) -> Batch:
    """Padded on the right, where causal attention never looks, to few widths: memory grows with every new shape."""
    length = -(-(max(len(each.ids) for each in tokens) - 1) // WIDTH_STEP) * WIDTH_STEP
    inputs = torch.zeros(len(tokens), length, dtype=torch.long)
    targets = torch.full((len(tokens), length), IGNORED)
    for row, each in enumerate(tokens):
        ids, said = torch.tensor(each.ids), torch.tensor(each.said)
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = torch.where(said[1:], ids[1:], IGNORED)
    return Batch(inputs, targets)
