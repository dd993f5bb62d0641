"""The training losses, pure functions of log probabilities."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, float], Tensor]


def mean_log_probs(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """ℓ(y|c) = (1/|y|)·Σ_t log p(y_t | y_<t, c), the mean over the tokens that `mask` keeps.

    Length-normalised, since exp(ℓ) of a sum vanishes for any long answer (METHODS §1, reconstruction).

    Args:
        logits: [rows, tokens, vocabulary], the prediction for each target.
        targets: [rows, tokens], ids; what stands under a masked position does not matter.
        mask: [rows, tokens], true where a target counts. A row without any gives 0.

    Returns:
        [rows], float32 or wider.
    """
    flat = functional.cross_entropy(_wide(logits).flatten(0, 1), targets.flatten(), reduction="none")
    kept = mask.to(flat.dtype)
    return -(flat.view_as(kept) * kept).sum(1) / kept.sum(1).clamp(min=1)


def clm(positive: Tensor, negative: Tensor, alpha: float) -> Tensor:
    """L = −mean ℓ(y⁺|c⁺); the negatives have no part. [positives], [negatives] -> scalar (arXiv 2404.01295)."""
    return -positive.mean()


def mate(positive: Tensor, negative: Tensor, alpha: float) -> Tensor:
    """L = −mean ℓ(y⁺|c⁺) + α·mean ℓ(y⁻|c⁺), unbounded below. [positives], [negatives] -> scalar (arXiv 2212.10515)."""
    return clm(positive, negative, alpha) + alpha * _mean(negative)


def exmate(positive: Tensor, negative: Tensor, alpha: float) -> Tensor:
    """L = −mean ℓ(y⁺|c⁺) + α·mean exp(ℓ(y⁻|c⁻)). [positives], [negatives] -> scalar.

    Source: CausalDialogue (arXiv 2212.10515), whose exponential makes the penalty fade as a negative becomes
    unlikely; used for control in arXiv 2404.01295. α = 0 is CLM. For one decision, with q⁺ and q⁻ the shares of
    positives and negatives, the optimum is p(y) = q⁺(y)/(λ + α·q⁻(y)).
    """
    return clm(positive, negative, alpha) + alpha * _mean(negative.exp())


def kl_to_reference(own: Tensor, reference: Tensor) -> Tensor:
    """mean_t Σ_v p_ref(v)·(log p_ref(v) − log p(v)). Log probabilities, [tokens, vocabulary] twice -> scalar.

    Holds a model to what the reference would say next, without the noise of the one token that was sampled.
    """
    return functional.kl_div(own, reference, reduction="batchmean", log_target=True)


LOSSES: dict[str, Loss] = {"clm": clm, "mate": mate, "exmate": exmate}
NEEDS_NEGATIVES = frozenset({"mate", "exmate"})


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else torch.zeros((), dtype=values.dtype, device=values.device)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
