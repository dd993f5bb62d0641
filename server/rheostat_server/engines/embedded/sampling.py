"""Logits become tokens: each row by its own settings and its own random numbers, all rows at once."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

import torch
from torch import Tensor

GREEDY_BELOW: Final = 1e-5
_FIRST_WIDTH: Final = 64


class ModelBroken(RuntimeError):
    """The model's logits are not numbers, so no token can be drawn."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request's tokens are drawn; the names are OpenAI's, and vLLM's where OpenAI has none."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def filters(self) -> bool:
        """Whether some tokens are cut off before one is drawn."""
        return not self.greedy and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)

    @property
    def penalises(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)


class Sampled(Protocol):
    """A row, as sampling sees it. `barred` are the tokens that it must not take now."""

    @property
    def sampling(self) -> Sampling: ...

    @property
    def prompt(self) -> Sequence[int]: ...

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def random(self) -> Random: ...

    @property
    def barred(self) -> Collection[int]: ...


class Sampler:
    """Draws one token for each of some rows, step after step, as long as the rows stay the same."""

    def __init__(self, rows: Sequence[Sampled], *, vocabulary: int, device: torch.device) -> None:
        self._rows = rows
        self._device = device
        settings = [row.sampling for row in rows]
        self._greedy = self._column([setting.greedy for setting in settings])
        self._all_greedy = all(setting.greedy for setting in settings)
        self._temperature = self._column([1.0 if s.greedy else s.temperature for s in settings])[:, None]
        self._plain = [i for i, setting in enumerate(settings) if not setting.filters]
        self._cut = [i for i, setting in enumerate(settings) if setting.filters]
        self._cuts = _Cuts([settings[i] for i in self._cut], vocabulary=vocabulary, device=device)
        self._biased = [i for i, setting in enumerate(settings) if setting.logit_bias]
        self._penalties = _Penalties(rows, vocabulary=vocabulary, device=device)

    def draw(self, logits: Tensor) -> list[int]:
        """The next token of each row, from (rows, vocabulary) logits.

        Raises:
            ModelBroken: a row's logits hold NaN, or nothing but minus infinity.
        """
        logits = self._adjusted(logits)
        best, greedy = logits.max(dim=-1)
        if not bool(best.isfinite().all()):
            raise ModelBroken("the model's logits are not finite numbers; its weights may be damaged")
        drawn = greedy if self._all_greedy else self._drawn(logits, best, greedy)
        self._penalties.count(drawn)
        tokens: list[int] = drawn.tolist()
        return tokens

    def _drawn(self, logits: Tensor, best: Tensor, greedy: Tensor) -> Tensor:
        probabilities = ((logits - best[:, None]) / self._temperature).softmax(dim=-1)
        chances = self._column([row.random.random() for row in self._rows], dtype=torch.float64)
        if not self._cut:
            drawn = _inverse(probabilities, chances)
        else:
            drawn = torch.empty_like(greedy)
            drawn[self._cut] = self._cuts.draw(probabilities[self._cut], chances[self._cut])
            if self._plain:
                drawn[self._plain] = _inverse(probabilities[self._plain], chances[self._plain])
        return torch.where(self._greedy, greedy, drawn)

    def _adjusted(self, logits: Tensor) -> Tensor:
        barred = [(i, row.barred) for i, row in enumerate(self._rows) if row.barred]
        if not (self._biased or barred or self._penalties):
            return logits
        logits = logits.clone()
        for i in self._biased:
            bias = self._rows[i].sampling.logit_bias
            logits[i, list(bias)] += self._column(list(bias.values()))
        for i, tokens in barred:
            logits[i, list(tokens)] = -math.inf
        self._penalties.apply(logits)
        return logits

    def _column(self, values: Sequence[float], *, dtype: torch.dtype | None = None) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self._device)


class _Penalties:
    """Presence, frequency and repetition penalties of those rows that have any.

    As OpenAI and vLLM define them: the first two look at the answer alone, and lower a logit by the penalty once, and
    by the penalty times the count; repetition looks at prompt and answer, and divides a positive logit or multiplies
    a negative one (arXiv 1909.05858, equation in section 4.1).
    """

    def __init__(self, rows: Sequence[Sampled], *, vocabulary: int, device: torch.device) -> None:
        self._index = [i for i, row in enumerate(rows) if row.sampling.penalises]
        chosen = [rows[i] for i in self._index]
        if not chosen:
            return
        self._counts = torch.stack([_counts(row.ids, vocabulary) for row in chosen]).to(device)
        self._in_prompt = torch.stack([_counts(row.prompt, vocabulary) > 0 for row in chosen]).to(device)
        self._presence, self._frequency, self._repetition = (
            torch.tensor(column, device=device)[:, None]
            for column in zip(
                *(
                    (row.sampling.presence_penalty, row.sampling.frequency_penalty, row.sampling.repetition_penalty)
                    for row in chosen
                ),
                strict=True,
            )
        )

    def __bool__(self) -> bool:
        return bool(self._index)

    def apply(self, logits: Tensor) -> None:
        if not self:
            return
        own = logits[self._index]
        said = self._counts > 0
        repeated = torch.where(own > 0, own / self._repetition, own * self._repetition)
        own = torch.where(said | self._in_prompt, repeated, own)
        logits[self._index] = own - self._frequency * self._counts - self._presence * said

    def count(self, tokens: Tensor) -> None:
        if self:
            own = tokens[self._index]
            self._counts[torch.arange(len(own), device=own.device), own] += 1


class _Cuts:
    """min_p, top_k and top_p, in vLLM's order: each looks at what the one before it left, made to sum to 1."""

    def __init__(self, settings: Sequence[Sampling], *, vocabulary: int, device: torch.device) -> None:
        self._vocabulary = vocabulary
        tops = [min(setting.top_k or vocabulary, vocabulary) for setting in settings]
        self._top_k = torch.tensor(tops, device=device)[:, None]
        self._top_p = torch.tensor([setting.top_p for setting in settings], device=device)[:, None]
        self._min_p = torch.tensor([setting.min_p for setting in settings], device=device)[:, None]
        self._only_top_p = (self._top_k >= vocabulary) & (self._min_p == 0)

    def draw(self, probabilities: Tensor, chances: Tensor) -> Tensor:
        """Sorts no more of the vocabulary than the rows can reach."""
        width = min(_FIRST_WIDTH, self._vocabulary)
        while True:
            values, ids = probabilities.topk(width)
            kept, enough = self._kept(values, width)
            if width == self._vocabulary or bool(enough.all()):
                return ids.gather(-1, _inverse(kept, chances)[:, None])[:, 0]
            width = min(width * 8, self._vocabulary)

    def _kept(self, values: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """(rows, width) of the descending `values` with those cut off at 0, and for each row whether `width` does."""
        places = torch.arange(width, device=values.device)
        floor = self._min_p * values[:, :1]
        kept = values * ((places < self._top_k) & (values >= floor))
        sums = kept.cumsum(dim=-1)
        all_seen = (self._top_k <= width) | (values[:, -1:] < floor)
        total = torch.where(self._only_top_p, 1.0, sums[:, -1:])
        enough = all_seen | (self._only_top_p & (sums[:, -1:] >= self._top_p))
        return kept * ((sums - kept < self._top_p * total) | (places == 0)), enough


def log_probabilities(
    logits: Tensor, tokens: Sequence[int], *, top: int
) -> tuple[list[float], list[list[int]], list[list[float]]]:
    """For each row of logits the log-probability of its token, and the `top` likeliest tokens with theirs.

    Of the model's own distribution, before temperature and penalties, as vLLM tells it.
    """
    scores = logits.log_softmax(dim=-1)
    own = scores.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    best = scores.topk(min(top, scores.shape[-1]), dim=-1)
    return own.tolist(), best.indices.tolist(), best.values.tolist()


def _inverse(weights: Tensor, chances: Tensor) -> Tensor:
    """Draws from each row of unnormalised `weights` by the inverse of its distribution function, at `chances`."""
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    drawn = torch.searchsorted(sums, (chances * sums[:, -1])[:, None], right=True)
    return drawn[:, 0].clamp_max(weights.shape[-1] - 1)


def _counts(ids: Sequence[int], vocabulary: int) -> Tensor:
    return torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=vocabulary).float()
