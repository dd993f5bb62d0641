"""The generate stage: N answers a prompt sampled from a causal language model, in shards that survive a kill."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat_training.conditioning import prompt_text, token_ids
from rheostat_training.kv_cache import growing_cache
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import claim, plan_facts, rows_digest
from rheostat_training.rows import Request, Sample, read_rows, write_rows

COMPACT_BELOW = 0.8
LONELY_BELOW_ROWS = 32


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How many answers, and how they are drawn. `batch_rows` counts answers, not prompts."""

    samples: int = 32
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 128
    batch_rows: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "batch_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (the likeliest token) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Positions of requests in the input, and their prompts' ids."""

    positions: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]


def generate(
    loaded: LoadedModel,
    requests: Sequence[Request],
    plan: SamplingPlan,
    out: Path,
    *,
    progress: Progress | None = None,
) -> Path:
    """Samples every request into `out/samples.jsonl`.

    Each batch is one shard with a random stream of its own, so a run that was killed goes on where it was and ends
    with the same file.

    Raises:
        AnotherRun: `out` holds samples of other requests, another plan or another model.
    """
    result = out / "samples.jsonl"
    asked = {"plan": plan_facts(plan), "requests": rows_digest(requests), "model": loaded.digest()}
    claim(out, {"stage": "generate", **asked})
    if result.exists():
        return result
    batches = _batches(loaded, requests, plan)
    shards = [out / "shards" / f"{number:05d}.jsonl" for number in range(len(batches))]
    with (progress or Progress.auto()).task("generate", len(requests) * plan.samples, unit="answers") as task:
        for number, (batch, shard) in enumerate(zip(batches, shards, strict=True)):
            count = len(batch.positions) * plan.samples
            if shard.exists():
                task.skip(count)
            else:
                write_rows(shard, _answer(loaded, requests, batch, plan, number))
                task.advance(count)
    return write_rows(result, (row for shard in shards for row in read_rows(shard, Sample)))


def sample(loaded: LoadedModel, requests: Sequence[Request], plan: SamplingPlan) -> list[Sample]:
    """Samples in memory, in the order of the requests."""
    answers: dict[int, list[Sample]] = {}
    for number, batch in enumerate(_batches(loaded, requests, plan)):
        rows = iter(_answer(loaded, requests, batch, plan, number))
        answers.update({position: list(islice(rows, plan.samples)) for position in batch.positions})
    return [row for position in range(len(requests)) for row in answers[position]]


def _batches(loaded: LoadedModel, requests: Sequence[Request], plan: SamplingPlan) -> list[_Batch]:
    """Batches of prompts of one length, which need no padding; the few left over are batched with padding."""
    texts = [prompt_text(loaded.tokenizer, request.messages, request.dials) for request in requests]
    ids = token_ids(loaded.tokenizer, texts)
    size = max(1, plan.batch_rows // plan.samples)
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for position, prompt in enumerate(ids):
        by_length[len(prompt)].append(position)
    even: list[list[int]] = []
    lonely: list[int] = []
    for length in sorted(by_length):
        for chunk in _chunks(by_length[length], size):
            if len(chunk) * plan.samples >= LONELY_BELOW_ROWS:
                even.append(chunk)
            else:
                lonely.extend(chunk)
    chunks = [*even, *_chunks(lonely, size)]
    return [_Batch(tuple(chunk), tuple(ids[position] for position in chunk)) for chunk in chunks]


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _answer(
    loaded: LoadedModel, requests: Sequence[Request], batch: _Batch, plan: SamplingPlan, number: int
) -> list[Sample]:
    generator = torch.Generator(loaded.device).manual_seed(plan.seed * 1_000_003 + number)
    rows = sample_ids(loaded, batch.prompts, plan, generator)
    texts = loaded.tokenizer.batch_decode(rows, skip_special_tokens=True)
    result = []
    for row, (ids, text) in enumerate(zip(rows, texts, strict=True)):
        request = requests[batch.positions[row // plan.samples]]
        finished = bool(ids) and ids[-1] == loaded.eos_token_id
        result.append(Sample(request.id, row % plan.samples, text.strip(), len(ids), finished, request.dials))
    return result


@torch.inference_mode()
def sample_ids(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], plan: SamplingPlan, generator: torch.Generator
) -> list[list[int]]:
    """Answer ids, `plan.samples` rows a prompt; a finished row ends in the end token.

    A prompt is read once and its cache expanded for its samples. Finished rows leave the batch.
    """
    decoding = _Decoding(loaded.model, prompts, plan.samples)
    rows: list[list[int]] = [[] for _ in range(len(prompts) * plan.samples)]
    alive = torch.arange(len(rows), device=loaded.device)
    going = torch.ones(len(rows), dtype=torch.bool, device=loaded.device)
    for step in range(plan.max_new_tokens):
        tokens = draw(decoding.logits, plan, generator)
        for row, token, goes in zip(alive.tolist(), tokens.tolist(), going.tolist(), strict=True):
            if goes:
                rows[row].append(token)
        going &= tokens != loaded.eos_token_id
        if step + 1 == plan.max_new_tokens or not going.any():
            break
        if going.float().mean() < COMPACT_BELOW:
            keep = going.nonzero().flatten()
            alive, tokens, going = alive[keep], tokens[keep], going[keep]
            decoding.keep(keep)
        decoding.step(tokens)
    return rows


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
