"""The generate stage: N answers a prompt from any sampler, in shards that survive a kill."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rheostat_training.limits import STRICT, a_seed, at_least, refuse, where
from rheostat_training.progress import Progress
from rheostat_training.resume import claim, plan_facts, rows_digest
from rheostat_training.rows import Request, Sample, read_rows, write_rows


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How many answers a prompt, and how they are drawn.

    `batch_rows` counts answers, not prompts. A sample's `least` is taken after its first `settling_tokens`: those
    choose what kind of answer it becomes, and a rare kind is no slip.
    """

    __pydantic_config__ = STRICT

    samples: int = 32
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 128
    batch_rows: int = 256
    settling_tokens: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(
            at_least(self, 1, "samples", "max_new_tokens", "batch_rows"),
            a_seed(self),
            at_least(self, 0, "settling_tokens", "temperature"),
            where(not 0 < self.top_p <= 1, f"top_p is {self.top_p}; it must be above 0 and at most 1"),
        )


def consecutive(requests: Sequence[Request], plan: SamplingPlan) -> list[range]:
    """Batches of requests as they come, for samplers to which the prompts' lengths make no difference."""
    size = max(1, plan.batch_rows // plan.samples)
    return [range(start, min(start + size, len(requests))) for start in range(0, len(requests), size)]


class Sampler(Protocol):
    """Answers requests in batches, each of which draws from a random stream of its own."""

    def identity(self) -> str:
        """What a run that is gone on with must find again: the digest of the weights, or where they are served."""
        ...

    def batches(self, requests: Sequence[Request], plan: SamplingPlan) -> Sequence[Sequence[int]]:
        """The positions of the requests that are answered together; every request is in one batch."""
        ...

    def answer(self, requests: Sequence[Request], plan: SamplingPlan, number: int) -> list[Sample]:
        """`plan.samples` answers to each request of batch `number`, in their order."""
        ...


def generate(
    sampler: Sampler,
    requests: Sequence[Request],
    plan: SamplingPlan,
    out: Path,
    *,
    told: str = "generate",
    progress: Progress | None = None,
) -> Path:
    """Samples every request into `out/samples.jsonl`; `told` is what the progress calls it.

    Each batch is one shard, so a run that was killed goes on where it was and, where the sampler is deterministic, ends
    with the same file.

    Raises:
        AnotherRun: `out` holds samples of other requests, another plan or another model.
    """
    result = out / "samples.jsonl"
    asked = {"plan": plan_facts(plan), "requests": rows_digest(requests), "model": sampler.identity()}
    claim(out, {"stage": "generate", **asked})
    if result.exists():
        return result
    batches = sampler.batches(requests, plan)
    shards = [out / "shards" / f"{number:05d}.jsonl" for number in range(len(batches))]
    with (progress or Progress.auto()).task(told, len(requests) * plan.samples, unit="answers") as task:
        for number, (positions, shard) in enumerate(zip(batches, shards, strict=True)):
            count = len(positions) * plan.samples
            if shard.exists():
                task.skip(count)
            else:
                write_rows(shard, sampler.answer([requests[position] for position in positions], plan, number))
                task.advance(count)
    return write_rows(result, (row for shard in shards for row in read_rows(shard, Sample)))
