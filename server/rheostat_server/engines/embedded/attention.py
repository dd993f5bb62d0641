"""Attention of one step: every running row's newest token, and stretches of prompts, in one flat sequence.

The model sees one sequence of N tokens, so linear layers waste nothing on padding; here the tokens part again, each
to look at its own past.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from rheostat_server.engines.embedded.cache import PromptCache, SlotCache, token_index, write_tokens
from rheostat_server.errors import CannotStart

NAME: Final = "rheostat"


class UnsupportedModel(CannotStart):
    """The embedded engine cannot run this model; the message says why."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some tokens of a prompt: `count` of them from `start` on, the earlier ones being in `cache` already."""

    cache: PromptCache
    start: int
    count: int


@dataclass(slots=True)
class Step:
    """What the flat sequence holds: one token of each row, row i in slot i, then the stretches.

    `positions` are the rows' places (rows,), that is, how many tokens of theirs the slots hold.
    """

    slots: SlotCache
    positions: Tensor
    stretches: Sequence[Stretch]
    span: int
    layers_seen: int = 0
    _indices: dict[int, Tensor] = field(default_factory=dict)
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.positions)

    def index(self, heads: int) -> Tensor:
        if heads not in self._indices:
            self._indices[heads] = token_index(self.positions, heads=heads, tokens=self.slots.tokens)
        return self._indices[heads]

    def mask(self, window: int | None) -> Tensor:
        """(rows, 1, 1, span): which past tokens a row's newest one may look at."""
        if window not in self._masks:
            self._masks[window] = visible(self.positions, self.span, window)[:, None, None]
        return self._masks[window]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    step: Step,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers' AttentionInterface; takes (1, heads, N, head size) each."""
    if softcap is not None or s_aux is not None or position_bias is not None:
        raise UnsupportedModel(
            "its attention has soft caps, sinks or biases, which the embedded engine does not compute"
        )
    step.layers_seen += 1
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    parts = []
    if step.rows:
        parts.append(_attend_rows(step, layer, query, key, value, scaling, sliding_window))
    offset = step.rows
    for stretch in step.stretches:
        there = slice(offset, offset + stretch.count)
        parts.append(
            _attend_stretch(
                stretch, layer, query[:, :, there], key[0, :, there], value[0, :, there], scaling, sliding_window
            )
        )
        offset += stretch.count
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


def visible(positions: Tensor, span: int, window: int | None) -> Tensor:
    """(len(positions), span): whether a token at a position may look at each of the first `span` ones."""
    past = torch.arange(span, device=positions.device)
    here = positions[:, None]
    causal = past <= here
    return causal if window is None else causal & (past > here - window)


def _attend_rows(
    step: Step, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    """(rows, heads, head size). Query heads that share a key head stand as its queries, so no key is repeated."""
    rows = step.rows
    keys, values = step.slots.layers[layer]
    heads = key.shape[1]
    index = step.index(heads)
    write_tokens(keys, index, key[0, :, :rows].transpose(0, 1))
    write_tokens(values, index, value[0, :, :rows].transpose(0, 1))
    grouped = query[0, :, :rows].transpose(0, 1).reshape(rows, heads, -1, query.shape[-1])
    attended = nn.functional.scaled_dot_product_attention(
        grouped,
        keys[:rows, :, : step.span],
        values[:rows, :, : step.span],
        attn_mask=step.mask(window),
        scale=scaling,
    )
    return attended.reshape(rows, query.shape[1], -1)


def _attend_stretch(
    stretch: Stretch,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """(tokens, heads, head size)."""
    keys, values = stretch.cache.write(layer, stretch.start, key, value)
    span = stretch.start + stretch.count
    whole = stretch.start == 0 and (window is None or span <= window)
    positions = torch.arange(stretch.start, span, device=key.device)
    attended = nn.functional.scaled_dot_product_attention(
        query,
        keys[None],
        values[None],
        attn_mask=None if whole else visible(positions, span, window),
        is_causal=whole,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[0],
    )
    return attended[0].transpose(0, 1)
