"""A causal language model in this process, by transformers: batched, seeded, resumable to the last token."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from rheostat_training.conditioning import prompt_text, token_ids
from rheostat_training.generate import SamplingPlan
from rheostat_training.kv_cache import growing_cache
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Request, Sample

COMPACT_BELOW = 0.8
LONELY_BELOW_ROWS = 32


@dataclass(frozen=True, slots=True)
class LocalSampler:
    """Samples a loaded model; see `generate.Sampler`."""

    loaded: LoadedModel

    def identity(self) -> str:
        return self.loaded.digest()

    def batches(self, requests: Sequence[Request], plan: SamplingPlan) -> list[tuple[int, ...]]:
        """Batches of prompts of one length, which need no padding; the few left over are batched with padding.

        Raises:
            ValueError: a prompt leaves no room for an answer.
        """
        size = max(1, plan.batch_rows // plan.samples)
        prompts = self._prompt_ids(requests)
        lengths = {request.id: len(ids) for request, ids in zip(requests, prompts, strict=True)}
        self.loaded.room.check(lengths, plan.max_new_tokens)
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for position, prompt in enumerate(prompts):
            by_length[len(prompt)].append(position)
        even: list[tuple[int, ...]] = []
        lonely: list[int] = []
        for length in sorted(by_length):
            for chunk in _chunks(by_length[length], size):
                if len(chunk) * plan.samples >= LONELY_BELOW_ROWS:
                    even.append(chunk)
                else:
                    lonely.extend(chunk)
        return [*even, *_chunks(lonely, size)]

    def answer(self, requests: Sequence[Request], plan: SamplingPlan, number: int) -> list[Sample]:
        generator = torch.Generator(self.loaded.device).manual_seed(plan.seed * 1_000_003 + number)
        rows = sample_ids(self.loaded, self._prompt_ids(requests), plan, generator)
        ends = self.loaded.end_ids
        texts = self.loaded.tokenizer.batch_decode([row.ids for row in rows], skip_special_tokens=True)
        return [
            Sample(
                prompt_id=requests[place // plan.samples].id,
                sample=place % plan.samples,
                answer=text.strip(),
                tokens=len(row.ids),
                finished=bool(row.ids) and row.ids[-1] in ends,
                dials=requests[place // plan.samples].dials,
                least=row.least,
            )
            for place, (row, text) in enumerate(zip(rows, texts, strict=True))
        ]

    def _prompt_ids(self, requests: Sequence[Request]) -> list[tuple[int, ...]]:
        tokenizer = self.loaded.tokenizer
        return token_ids(
            tokenizer, [prompt_text(tokenizer, request.messages, request.written_dials) for request in requests]
        )


def sample(loaded: LoadedModel, requests: Sequence[Request], plan: SamplingPlan) -> list[Sample]:
    """Samples in memory, in the order of the requests."""
    sampler = LocalSampler(loaded)
    answers: dict[int, list[Sample]] = {}
    for number, positions in enumerate(sampler.batches(requests, plan)):
        rows = iter(sampler.answer([requests[position] for position in positions], plan, number))
        answers.update({position: list(islice(rows, plan.samples)) for position in positions})
    return [row for position in range(len(requests)) for row in answers[position]]


def _chunks(items: list[int], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])


@dataclass(frozen=True, slots=True)
class Drawn:
    """An answer's ids, a finished one ending in an end token, and the least probability of one of them."""

    ids: list[int]
    least: float


@torch.inference_mode()
def sample_ids(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], plan: SamplingPlan, generator: torch.Generator
) -> list[Drawn]:
    """Answers, `plan.samples` rows a prompt.

    A prompt is read once and its cache expanded for its samples. Finished rows leave the batch.
    """
    decoding = _Decoding(loaded.model, prompts, plan.samples)
    rows: list[list[int]] = [[] for _ in range(len(prompts) * plan.samples)]
    least = torch.ones(len(rows), device=loaded.device)
    alive = torch.arange(len(rows), device=loaded.device)
    going = torch.ones(len(rows), dtype=torch.bool, device=loaded.device)
    ends = torch.tensor(sorted(loaded.end_ids), device=loaded.device)
    for step in range(plan.max_new_tokens):
        tokens = draw(decoding.logits, plan, generator)
        for row, token, goes in zip(alive.tolist(), tokens.tolist(), going.tolist(), strict=True):
            if goes:
                rows[row].append(token)
        if step >= plan.settling_tokens:
            least[alive[going]] = torch.minimum(least[alive], probability(decoding.logits, tokens))[going]
        going &= ~torch.isin(tokens, ends)
        if step + 1 == plan.max_new_tokens or not going.any():
            break
        if going.float().mean() < COMPACT_BELOW:
            keep = going.nonzero().flatten()
            alive, tokens, going = alive[keep], tokens[keep], going[keep]
            decoding.keep(keep)
        decoding.step(tokens)
    return [Drawn(ids, value) for ids, value in zip(rows, least.tolist(), strict=True)]


def probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """The model's own probability of each row's token, at temperature 1. [rows, vocabulary], [rows] -> [rows]."""
    wide = logits.float()
    return (wide.gather(-1, tokens[:, None])[:, 0] - wide.logsumexp(-1)).exp()


def draw(logits: Tensor, plan: SamplingPlan, generator: torch.Generator) -> Tensor:
    """One token a row by the inverse of the cumulative distribution. [rows, vocabulary] -> [rows]."""
    if plan.temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float() / plan.temperature, dim=-1)
    if plan.top_p < 1:
        probabilities = _nucleus(probabilities, plan.top_p)
    total = probabilities.cumsum(-1)
    point = torch.rand(len(total), 1, generator=generator, device=total.device) * total[:, -1:]
    return torch.searchsorted(total, point, right=True).clamp_(max=logits.shape[-1] - 1).squeeze(-1)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The smallest set of likeliest tokens that holds `top_p` of the probability; the rest is zero."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return probabilities.masked_fill(outside.scatter(-1, order, outside), 0.0)


class _Decoding:
    """A batch of prompts, read once, that is answered token by token."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], samples: int) -> None:
        self.model = model
        self.cache = growing_cache(model.config)
        width = max(len(prompt) for prompt in prompts)
        device = next(model.parameters()).device
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        self.mask: Tensor | None = None
        self.positions: Tensor | None = None
        if any(len(prompt) != width for prompt in prompts):
            lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
            self.mask = (torch.arange(width, device=device) >= (width - lengths)[:, None]).long()
            self.positions = (self.mask.cumsum(-1) - 1).clamp_(min=0)
        self.logits = self._forward(ids).repeat_interleave(samples, 0)
        self.cache.batch_repeat_interleave(samples)
        if self.mask is not None and self.positions is not None:
            self.mask = self.mask.repeat_interleave(samples, 0)
            self.positions = self.positions[:, -1:].repeat_interleave(samples, 0)

    def step(self, tokens: Tensor) -> None:
        """Reads one more token a row."""
        if self.mask is not None and self.positions is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
            self.positions = self.positions + 1
        self.logits = self._forward(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Drops every other row."""
        self.cache.batch_select_indices(rows)
        if self.mask is not None and self.positions is not None:
            self.mask, self.positions = self.mask[rows], self.positions[rows]

    def _forward(self, ids: Tensor) -> Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits
