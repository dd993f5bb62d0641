"""A key-value cache that grows in place, where the library's own copies itself for every token."""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

GROWTH_TOKENS = 64


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in buffers with room for more tokens; reads give views of the part in use.

    `keys` and `values` are those views, [rows, heads, tokens, width], so every method of the library's layer still
    reads them right.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: torch.Tensor
        self.values: torch.Tensor
        self.buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.buffers is None or self.buffers[0].shape[-2] < end:
            self.buffers = self._room(key_states, start, end), self._room(value_states, start, end)
            if start:
                self.buffers[0][:, :, :start] = self.keys
                self.buffers[1][:, :, :start] = self.values
        self.buffers[0][:, :, start:end] = key_states
        self.buffers[1][:, :, start:end] = value_states
        self.keys, self.values = self.buffers[0][:, :, :end], self.buffers[1][:, :, :end]
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.buffers = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.buffers is None:
            super().batch_select_indices(indices)
            return
        end = self.get_seq_length()
        self.buffers = self.buffers[0][indices], self.buffers[1][indices]
        self.keys, self.values = self.buffers[0][:, :, :end], self.buffers[1][:, :, :end]

    @staticmethod
    def _room(states: torch.Tensor, start: int, end: int) -> torch.Tensor:
        tokens = end if start == 0 else end + GROWTH_TOKENS
        return states.new_empty(*states.shape[:2], tokens, states.shape[3])


def growing_cache(config: Any) -> Any:
    """The cache that the model's configuration asks for, its plain layers replaced by growing ones."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
