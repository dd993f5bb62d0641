"""The training losses, pure functions of log probabilities."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LEAST_CHANCE = 1e-5
"""Below it, the chance of any token but the unwanted one is held, as the code of arXiv 1908.04319 does."""


@dataclass(frozen=True, slots=True)
class RowLogs:
    """The log probabilities of some answers, one row an answer, from one forward.

    Attributes:
        tokens: [rows, tokens], log p(y_t | y_<t, c); 0 where `mask` is false.
        mask: [rows, tokens], true where a token counts.
        of: how many such rows the whole step has. Means are over them, so that the losses of a step's parts add up to
            the loss of the step.
        reference: [rows], Σ_t log p(y_t | y_<t, c) under the reference model; only where the loss asks for it.
        aim: [rows], what is wanted of each positive's margin over its negative; 0 where nothing is said.
    """

    tokens: Tensor
    mask: Tensor
    of: int
    reference: Tensor | None = None
    aim: Tensor | float = 0.0

    def sums(self) -> Tensor:
        """Σ_t log p(y_t | y_<t, c), [rows]."""
        return self.tokens.sum(1)

    def means(self) -> Tensor:
        """ℓ(y|c) = (1/|y|)·Σ_t log p(y_t | y_<t, c), [rows]. A row of which nothing counts gives 0.

        Length-normalised, since exp(ℓ) of a sum vanishes for any long answer (our reconstruction).
        """
        return self.over_length(self.tokens)

    def over_length(self, values: Tensor) -> Tensor:
        """The mean of each row's values over the tokens that count. [rows, tokens] -> [rows]."""
        return (values * self.mask).sum(1) / self.mask.sum(1).clamp(min=1)

    def over_step(self, values: Tensor) -> Tensor:
        """This part's share of the mean over the step's rows. [rows] -> scalar; 0 where there are none."""
        return values.sum() / max(1, self.of)

    def ratios(self) -> Tensor:
        """Σ_t [log p(y_t | y_<t, c) − log p_ref(y_t | y_<t, c)], [rows]."""
        if self.reference is None:
            raise ValueError("reference is None; this loss compares with a reference model")
        return self.sums() - self.reference


Loss = Callable[[RowLogs, RowLogs, float], Tensor]
"""Positives, negatives, and the loss's one weight (α, of `dpo` and `rpo` β, of `bfpo` τ) -> scalar."""


def token_log_probs(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """log p(y_t | y_<t, c) of each target.

    Args:
        logits: [rows, tokens, vocabulary], the prediction for each target.
        targets: [rows, tokens], ids; what stands under a masked position does not matter.
        mask: [rows, tokens], true where a target counts.

    Returns:
        [rows, tokens], float32 or wider; 0 where the mask is false.
    """
    flat = functional.cross_entropy(_wide(logits).flatten(0, 1), targets.flatten(), reduction="none")
    return -flat.view_as(targets) * mask


def clm(positive: RowLogs, negative: RowLogs, weight: float) -> Tensor:
    """L = −mean ℓ(y⁺|c⁺); the negatives have no part (arXiv 2404.01295)."""
    return -positive.over_step(positive.means())


def mate(positive: RowLogs, negative: RowLogs, weight: float) -> Tensor:
    """L = −mean ℓ(y⁺|c⁺) + α·mean ℓ(y⁻|c⁺), unbounded below (arXiv 2212.10515)."""
    return clm(positive, negative, weight) + weight * negative.over_step(negative.means())


def exmate(positive: RowLogs, negative: RowLogs, weight: float) -> Tensor:
    """L = −mean ℓ(y⁺|c⁺) + α·mean exp(ℓ(y⁻|c⁻)).

    Source: CausalDialogue (arXiv 2212.10515), whose exponential makes the penalty fade as a negative becomes
    unlikely; used for control in arXiv 2404.01295. α = 0 is CLM. For one decision, with q⁺ and q⁻ the shares of
    positives and negatives, the optimum is p(y) = q⁺(y)/(λ + α·q⁻(y)).
    """
    return clm(positive, negative, weight) + weight * negative.over_step(negative.means().exp())


def unlikelihood(positive: RowLogs, negative: RowLogs, weight: float) -> Tensor:
    """L = −mean ℓ(y⁺|c⁺) − α·mean (1/|y⁻|)·Σ_t log(1 − p(y⁻_t | y⁻_<t, c⁻)).

    Source: Welleck et al. (arXiv 1908.04319, eq. 4), with the tokens of a wrong answer as the negative candidates, as
    Li et al. do for dialogue (arXiv 1911.03860). Unlike `exmate` it presses on each token by itself.
    """
    others = -torch.expm1(negative.tokens)
    pressure = -others.clamp(min=LEAST_CHANCE).log()
    return clm(positive, negative, weight) + weight * negative.over_step(negative.over_length(pressure))


def dpo(positive: RowLogs, negative: RowLogs, weight: float) -> Tensor:
    """L = −mean log σ(β·[log π(y⁺|c)/π_ref(y⁺|c) − log π(y⁻|c)/π_ref(y⁻|c)] − aim), eq. 7 of arXiv 2305.18290.

    The aim is MidPO's margin (arXiv 2506.02460), 0 in DPO. Over tokens that a mask keeps this is ADPO (arXiv
    2502.11555, our reconstruction): a masked token has no share in either sum.

    Row i of the negatives is the rejected answer to row i of the positives: the same prompt under the same dials.
    TRL's DPOTrainer has this loss too; here it shares heads, batches and resume with the losses it is compared with.
    """
    margins = positive.ratios() - negative.ratios()
    return -positive.over_step(functional.logsigmoid(weight * margins - positive.aim))


def rpo(positive: RowLogs, negative: RowLogs, weight: float) -> Tensor:
    """L = `dpo` + `clm`, eq. 3 of arXiv 2404.19733 with its α = 1.

    DPO alone is content with answers that nobody would write, as long as the rejected ones are less likely still.
    """
    return dpo(positive, negative, weight) + clm(positive, negative, weight)


def bfpo(positive: RowLogs, negative: RowLogs, weight: float) -> Tensor:
    """L = mean (log π(y⁺|c)/π_ref(y⁺|c) − log π(y⁻|c)/π_ref(y⁻|c) − aim/τ)² (arXiv 2408.15313).

    Row i of the positives is the more helpful of two answers, row i of the negatives the less helpful; the aim, of
    which answers are safe, is `equilibrate.pairs.bfpo_aim`.
    """
    margins = positive.ratios() - negative.ratios()
    return positive.over_step((margins - positive.aim / weight).square())


def arj(positive: RowLogs, negative: RowLogs, weight: float) -> Tensor:
    """L = −mean Σ_t M_t·log p(y_t | y_<t, c) over the best of N answers, M its mask; the negatives have no part.

    Source: Equilibrate RLHF (arXiv 2502.11555); the loss is our reconstruction. Without a mask it is rejection
    sampling's fine-tuning.
    """
    return -positive.over_step(positive.sums())


def kl_to_reference(own: Tensor, reference: Tensor, of: int) -> Tensor:
    """(1/of)·Σ_t Σ_v p_ref(v)·(log p_ref(v) − log p(v)). Log probabilities, [tokens, vocabulary] twice -> scalar.

    Holds a model to what the reference would say next, without the noise of the one token that was sampled. `of` is
    how many tokens the whole step has.
    """
    return functional.kl_div(own, reference, reduction="sum", log_target=True) / max(1, of)


LOSSES: dict[str, Loss] = {
    "clm": clm,
    "mate": mate,
    "exmate": exmate,
    "unlikelihood": unlikelihood,
    "dpo": dpo,
    "rpo": rpo,
    "bfpo": bfpo,
    "arj": arj,
}
NEEDS_NEGATIVES = frozenset({"mate", "exmate", "unlikelihood"})
IN_PAIRS = frozenset({"dpo", "rpo", "bfpo"})
"""Losses that compare with a reference, a negative with its positive; these have as many of the one as of the other."""
OF_PREFERENCES = frozenset({"bfpo", "arj"})
"""Losses of pairs that are made by preference, and not of answers under dials (`equilibrate.pairs`)."""


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
