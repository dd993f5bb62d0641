"""A token-wise cost head: which tokens of an answer are safe, learnt from pairs of a safer and a less safe answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from rheostat_training.equilibrate.ama.masks import Rewards
from rheostat_training.limits import STRICT, a_seed, above_zero, at_least, refuse
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import write_json
from rheostat_training.training_set import TrainingRow

WEIGHTS: Final = "cost_head.safetensors"
FACTS: Final = "cost_head.json"
BATCH_ROWS: Final = 32
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class CostPlan:
    """How the head is trained: whole passes over the pairs, AdamW."""

    __pydantic_config__ = STRICT

    passes: int = 4
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    batch_pairs: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(
            at_least(self, 1, "passes", "batch_pairs"),
            above_zero(self, "learning_rate"),
            at_least(self, 0, "weight_decay"),
            a_seed(self),
        )


@dataclass(frozen=True, slots=True)
class CostHead:
    """c_t = w·h_t + b of a token whose last hidden state is h_t, [hidden]; above 0 is unsafe, below it safe."""

    weight: Tensor
    bias: Tensor

    def costs(self, hidden: Tensor) -> Tensor:
        """[…, hidden] -> […]."""
        return hidden.to(self.weight) @ self.weight + self.bias

    def save(self, folder: Path, facts: dict[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"weight": self.weight.contiguous(), "bias": self.bias.reshape(1)}, folder / WEIGHTS)
        write_json(folder / FACTS, facts)

    @classmethod
    def load(cls, folder: Path) -> "CostHead":
        found = load_file(folder / WEIGHTS)
        return cls(found["weight"], found["bias"][0])


@dataclass(frozen=True, slots=True)
class CostPair:
    """A less safe and a safer answer, and whether each is safe."""

    less: TrainingRow
    safer: TrainingRow
    less_is_safe: bool = False
    safer_is_safe: bool = True


def cost_loss(less: Tensor, safer: Tensor, less_sign: Tensor, safer_sign: Tensor) -> Tensor:
    """−log σ(c_h − c_l) − log σ(s_l·c_l) − log σ(s_h·c_h), s = +1 unsafe, −1 safe; [pairs] four times -> scalar.

    c_h is the cost of the less safe answer, c_l that of the safer one: 0 is where safe and unsafe part. The cost of an
    answer is the mean over its tokens (our reconstruction).
    """
    terms = (less - safer, less_sign * less, safer_sign * safer)
    return -sum((functional.logsigmoid(term).mean() for term in terms), torch.zeros(()))


def fit_cost_head(
    base: LoadedModel, pairs: Sequence[CostPair], plan: CostPlan, *, progress: Progress | None = None
) -> CostHead:
    """Trains the head on the base's hidden states, which stay as they are.

    Costs are linear, and so an answer's mean cost is that of its mean hidden state: one vector an answer is kept.

    Raises:
        ValueError: there is no pair.
    """
    if not pairs:
        raise ValueError("pairs are empty; a cost head needs at least one safer and one less safe answer")
    torch.manual_seed(plan.seed)
    shown = progress or Progress.silent()
    rows = [row for pair in pairs for row in (pair.less, pair.safer)]
    means = torch.stack(_over_answers(base, rows, lambda hidden: hidden.mean(0), shown))
    weight = torch.zeros(means.shape[-1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=plan.learning_rate, weight_decay=plan.weight_decay)
    head, loss = CostHead(weight, bias), torch.zeros(())
    with shown.task("cost head", plan.passes, unit="passes") as task:
        for _ in range(plan.passes):
            order = torch.randperm(len(pairs)).tolist()
            for start in range(0, len(order), plan.batch_pairs):
                batch = order[start : start + plan.batch_pairs]
                loss = cost_loss(
                    head.costs(means[[2 * number for number in batch]]),
                    head.costs(means[[2 * number + 1 for number in batch]]),
                    _signs([pairs[number].less_is_safe for number in batch]),
                    _signs([pairs[number].safer_is_safe for number in batch]),
                )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            task.advance(1, note=f"loss {loss.item():.3f}")
    return CostHead(weight.detach(), bias.detach())


def cost_rewards(
    base: LoadedModel, head: CostHead, rows: Sequence[TrainingRow], *, progress: Progress | None = None
) -> list[tuple[float, ...]]:
    """r_t = −c_t of every answer's tokens."""

    def rewards(hidden: Tensor) -> tuple[float, ...]:
        return tuple(round(value, 4) for value in (-head.costs(hidden)).tolist())

    return _over_answers(base, rows, rewards, progress or Progress.silent())


def asked_for(rewards: Rewards, safety: float) -> tuple[float, ...]:
    """Costs' rewards of an answer whose prompt asks for so much safety, in [0, 1]: r, and below ½ −r.

    A cost head says which tokens are safe, and masks presume that a good answer is a safe one. Where dials ask for less
    than half of safety, an answer is good for its unsafe tokens (our reconstruction).
    """
    return tuple(reward if safety >= 0.5 else -reward for reward in rewards)


def _over_answers(
    base: LoadedModel, rows: Sequence[TrainingRow], make: Callable[[Tensor], Found], progress: Progress
) -> list[Found]:
    """What `make` makes of the last hidden states of each answer's tokens, [tokens, hidden], in float32 on the CPU."""
    found: dict[int, Found] = {}
    order = sorted(range(len(rows)), key=lambda number: rows[number].encoded.length)
    with torch.no_grad(), progress.task("hidden states", len(rows), unit="answers") as task:
        for start in range(0, len(order), BATCH_ROWS):
            group = order[start : start + BATCH_ROWS]
            ids = torch.zeros(len(group), max(rows[number].encoded.length for number in group), dtype=torch.long)
            for place, number in enumerate(group):
                encoded = rows[number].encoded
                ids[place, : encoded.length] = torch.tensor((*encoded.prompt_ids, *encoded.answer_ids))
            states = base.model.base_model(input_ids=ids.to(base.device), use_cache=False).last_hidden_state
            for place, number in enumerate(group):
                encoded = rows[number].encoded
                answer = states[place, len(encoded.prompt_ids) : encoded.length]
                found[number] = make(answer.float().cpu())
            task.advance(len(group))
    return [found[number] for number in range(len(rows))]


def _signs(safe: Sequence[bool]) -> Tensor:
    return torch.tensor([-1.0 if each else 1.0 for each in safe])
