"""APPO: a policy gradient that learns from the tokens that deserve their answer's advantage.

Source: Equilibrate RLHF (arXiv 2502.11555); the loss, and where its token rewards come from, are our reconstruction.
An answer's advantage is right or wrong of each token: one that was good is learnt from its safe tokens, one that was
bad from its unsafe ones; the other way round where its control text asks for less than half of safety.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from rheostat_training.conditioning import Encoded
from rheostat_training.equilibrate.ama.cost_head import CostHead, asked_for, cost_rewards
from rheostat_training.equilibrate.ama.implicit_rewards import implicit_rewards
from rheostat_training.equilibrate.ama.masks import Masked, Masking, Rewards, masks
from rheostat_training.fit_plan import FitPlan
from rheostat_training.models import LoadedModel
from rheostat_training.training_set import TrainingRow

TokenRewards = Callable[[Sequence[TrainingRow], Sequence[float]], Sequence[Rewards]]
"""V_t of every answer's tokens, by the answers and the safety that each was asked for, in [0, 1].

It is asked while the policy's adapter is off.
"""
EPSILON: Final = 0.2


def appo_loss(
    logs: Tensor, before: Tensor, advantages: Tensor, kept: Tensor, *, of: Tensor | float, epsilon: float = EPSILON
) -> Tensor:
    """L = −Σ m_t·min(w_t A_t, clip(w_t, 1±ε)·A_t)/Σ m, w_t = π/π_before of a token.

    Args:
        logs: [rows, tokens], log π of each token.
        before: [rows, tokens], under the policy that answered.
        advantages: [rows], of each answer.
        kept: [rows, tokens], m.
        of: Σ m of the whole step, so that the losses of a step's parts add up to the loss of the step.
    """
    ratio, advantage = (logs - before).exp(), advantages[:, None]
    gains = torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon) * advantage)
    return -(gains * kept).sum() / max(float(of), 1.0)


def appo_masks(rewards: Sequence[Rewards], advantages: Sequence[float], masking: Masking, *, seed: str = "") -> Masked:
    """m_t = [A ≥ 0][V_t > b] + [A < 0][V_t < b] of each answer, by the rule of `masking`.

    With "segment" and a `delta` of 0 it is this very formula; an answer of which nothing would be left is kept whole.
    """
    rows = [(each, advantage >= 0) for each, advantage in zip(rewards, advantages, strict=True)]
    return masks(rows, masking, seeds=[f"{seed} {place}" for place in range(len(rows))])


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """m of a step's answers, [rows, tokens], 0 and 1, and `Masked.shares` of them, chosen those of A ≥ 0."""

    mask: Tensor
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Masker:
    """Makes the masks of a step's answers as TRL holds them."""

    masking: Masking
    token_rewards: TokenRewards
    seed: int

    def kept(self, batch: Mapping[str, Tensor], step: int, safety: Sequence[float]) -> KeptTokens:
        """What is kept of each answer; of those that are masked already, as those cut off are, nothing.

        Args:
            batch: TRL's "prompt_ids", "completion_ids" and their masks, [rows, tokens], and "advantages", [rows].
            step: what random masks are drawn by, beside the seed.
            safety: [rows], the level that each answer was asked for.

        Raises:
            ValueError: token rewards are not one a token, or levels not one an answer.
        """
        counted = batch["completion_mask"]
        if len(safety) != len(counted):
            raise ValueError(f"safety has {len(safety)} levels for {len(counted)} answers; there must be one an answer")
        found = torch.zeros_like(counted)
        places = [place for place, tokens in enumerate(counted.sum(1).tolist()) if tokens]
        rows = [_row(batch, place) for place in places]
        rewards = self.token_rewards(rows, [safety[place] for place in places]) if rows else []
        for row, each in zip(rows, rewards, strict=True):
            if len(each) != len(row.encoded.answer_ids):
                raise ValueError(
                    f"an answer of {len(row.encoded.answer_ids)} tokens has {len(each)} token rewards; there must be "
                    "one a token"
                )
        advantages = batch["advantages"].tolist()
        made = appo_masks(rewards, [advantages[place] for place in places], self.masking, seed=f"{self.seed} {step}")
        for place, mask in zip(places, made.masks, strict=True):
            found[place, counted[place].bool()] = torch.tensor(mask).to(found)
        return KeptTokens(found, made.shares())


def of_head(base: LoadedModel, head: CostHead) -> TokenRewards:
    """V_t = −c_t by a cost head on the base's hidden states, c_t where less than half of safety is asked for.

    `base` may be the one that learns. See `cost_head.asked_for`.
    """

    def rewards(rows: Sequence[TrainingRow], safety: Sequence[float]) -> list[tuple[float, ...]]:
        return [asked_for(each, level) for each, level in zip(cost_rewards(base, head, rows), safety, strict=True)]

    return rewards


def of_fit(base: LoadedModel, adapter: Path, plan: FitPlan | None = None) -> TokenRewards:
    """V_t = log π_DPO − log π_ref of a preference fit's adapter; `base` must be another copy than the one that learns.

    The fit reads the dials in the control text itself: it should have learnt from pairs that had some.

    Raises:
        ValueError: when it is asked, the base has an adapter on it.
    """

    def rewards(rows: Sequence[TrainingRow], _: Sequence[float]) -> list[tuple[float, ...]]:
        if any(isinstance(module, LoraLayer) for module in base.model.modules()):
            raise ValueError("the base of the token rewards has an adapter on it; load another copy of it for them")
        return implicit_rewards(base, adapter, rows, plan or FitPlan())

    return rewards


def _row(batch: Mapping[str, Tensor], place: int) -> TrainingRow:
    prompt, answer = (
        tuple(batch[f"{part}_ids"][place][batch[f"{part}_mask"][place].bool()].tolist())
        for part in ("prompt", "completion")
    )
    return TrainingRow(Encoded(prompt, answer))
