"""Keys and values: a `PromptCache` while a prompt is read, a row of the `SlotCache` while an answer is written."""

from typing import Final

import torch
from torch import Tensor

KeyValue = tuple[Tensor, Tensor]

_GRAIN: Final = 128


class PromptCache:
    """Keys and values of one prompt: a pair of (heads, tokens, head size) a layer."""

    def __init__(self, tokens: int) -> None:
        self.layers: dict[int, KeyValue] = {}
        self._tokens = tokens

    def write(self, layer: int, start: int, key: Tensor, value: Tensor) -> KeyValue:
        """Puts (heads, new tokens, head size) at `start`; gives back all up to there."""
        if layer not in self.layers:
            self.layers[layer] = (self._empty(key), self._empty(value))
        end = start + key.shape[1]
        keys, values = self.layers[layer]
        keys[:, start:end] = key
        values[:, start:end] = value
        return keys[:, :end], values[:, :end]

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_empty(like.shape[0], self._tokens, like.shape[2])


class SlotCache:
    """Keys and values of the running rows: a pair of (slots, heads, tokens, head size) a layer.

    A row's tokens begin at 0, so that a row joins or leaves without moving another's; what lies beyond its length
    is masked. It must be finite all the same, as a masked NaN makes attention NaN: new room is zeros. Both sizes double
    when they are too small.
    """

    def __init__(self) -> None:
        self.slots = 0
        self.tokens = 0
        self.layers: dict[int, KeyValue] = {}

    def reserve(self, slots: int, tokens: int) -> None:
        """Makes room for so many slots of so many tokens."""
        if slots <= self.slots and tokens <= self.tokens:
            return
        self.slots = _grown(self.slots, slots, 8)
        self.tokens = _grown(self.tokens, tokens, _GRAIN)
        for layer, (keys, values) in self.layers.items():
            self.layers[layer] = (self._enlarged(keys), self._enlarged(values))

    def adopt(self, prompt: PromptCache, slots: range) -> None:
        """Copies a prompt into slots, one for each of its candidates."""
        for layer, (keys, values) in prompt.layers.items():
            if layer not in self.layers:
                self.layers[layer] = (self._empty(keys), self._empty(values))
            for buffer, source in zip(self.layers[layer], (keys, values), strict=True):
                buffer[slots.start : slots.stop, :, : source.shape[1]] = source

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies a row of `tokens` tokens over another slot."""
        for pair in self.layers.values():
            for buffer in pair:
                buffer[target, :, :tokens] = buffer[source, :, :tokens]

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.slots, like.shape[0], self.tokens, like.shape[2])

    def _enlarged(self, old: Tensor) -> Tensor:
        new = old.new_zeros(self.slots, old.shape[1], self.tokens, old.shape[3])
        new[: old.shape[0], :, : old.shape[2]] = old
        return new


def write_tokens(buffer: Tensor, index: Tensor, states: Tensor) -> None:
    """Writes one token a row: `states` is (rows, heads, head size), `index` each (row, head)'s place in the buffer."""
    buffer.view(-1, buffer.shape[-1]).index_copy_(0, index, states.reshape(-1, states.shape[-1]))


def token_index(positions: Tensor, *, heads: int, tokens: int) -> Tensor:
    """The places of (row, head) at `positions` in a buffer of `tokens` tokens a slot, row i being in slot i."""
    rows = torch.arange(len(positions) * heads, device=positions.device)
    return rows * tokens + positions.repeat_interleave(heads)


def _grown(size: int, needed: int, grain: int) -> int:
    size = max(size, grain)
    while size < needed:
        size *= 2
    return size
