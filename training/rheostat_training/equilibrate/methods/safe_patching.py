"""SafePatching's arithmetic: two patches, which of their entries go into the model, and the adapter made of those.

Source: arXiv 2405.13820. How ascent is bounded, what importance is taken of, and the truncation to low rank are our
reconstruction. `safe_patching_fit` learns the patches.
"""

from dataclasses import dataclass
from typing import Final, get_args

import torch
from torch import Tensor

from rheostat_training.fit_plan import Dtype, FitPlan
from rheostat_training.limits import STRICT, a_seed, above_zero, at_least, one_of, refuse, where

SHARES: Final = ("retention", "top_enhance", "top_loosen")


class Loosens(ValueError):
    """A patch would loosen the model more than it protects it; the message says by how much."""


@dataclass(frozen=True, slots=True)
class SafePatchPlan:
    """How the two patches are learnt, and what of them is kept.

    Each of the two is a LoRA of `rank` and `lora_alpha` on every linear layer, learnt in `steps` of `batch_rows` unsafe
    answers. Ascent ends for an answer that has become e^`ascent_margin` times less likely a token than it was: without
    a bound it diverges. `retention` (p) is the share of a patch's entries that are kept at random; `top_enhance` (a)
    and `top_loosen` (b) are the shares of a layer's weights that make the index sets, by importance taken over
    `importance_rows` answers; `alpha` and `beta` weigh the patch against unsafe answers and that against over-safety.
    The adapter has `export_rank`, half of the narrower side of any layer at most.

    b may not be above a, nor β above α: what loosens is the smaller part of the patch.
    """

    __pydantic_config__ = STRICT

    rank: int = 16
    lora_alpha: float = 32.0
    steps: int = 60
    batch_rows: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 5
    clip: float = 1.0
    ascent_margin: float = 2.0
    importance_rows: int = 128
    retention: float = 0.3
    top_enhance: float = 0.03
    top_loosen: float = 0.02
    alpha: float = 1.0
    beta: float = 0.2
    export_rank: int = 16
    seed: int = 0
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in SHARES}
        refuse(
            at_least(self, 1, "rank", "steps", "batch_rows", "importance_rows", "export_rank"),
            at_least(self, 0, "warmup_steps", "beta"),
            above_zero(self, "lora_alpha", "learning_rate", "clip", "ascent_margin", "alpha", *SHARES),
            a_seed(self),
            one_of(self, "dtype", get_args(Dtype)),
            *(where(value > 1, f"{name} is {value}; it must be at most 1") for name, value in shares.items()),
            where(
                self.top_loosen > self.top_enhance,
                f"top_loosen is {self.top_loosen}; it must be at most top_enhance, {self.top_enhance}",
            ),
            where(self.beta > self.alpha, f"beta is {self.beta}; it must be at most alpha, {self.alpha}"),
        )

    @property
    def fit(self) -> FitPlan:
        """The plan of each of the two fits."""
        return FitPlan(
            loss="clm",
            rank=self.rank,
            lora_alpha=self.lora_alpha,
            steps=self.steps,
            batch_rows=self.batch_rows,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            clip=self.clip,
            seed=self.seed,
            dtype=self.dtype,
        )

    @property
    def exported(self) -> FitPlan:
        """The plan of the adapter, whose factors are applied as they are."""
        return FitPlan(rank=self.export_rank, lora_alpha=self.export_rank, seed=self.seed)


def ascent_loss(losses: Tensor, of_base: Tensor, margin: float) -> Tensor:
    """L = −mean min(ℓ, ℓ_base + margin), the mean losses a token of some answers, in nats; [rows] twice -> scalar.

    An answer past its bound has no gradient.
    """
    return -torch.minimum(losses, of_base + margin).mean()


def retained(patch: Tensor, share: float, chance: torch.Generator) -> Tensor:
    """The patch with each entry kept with probability `share`, else 0; kept ones are not scaled up."""
    drawn = torch.rand(patch.shape, generator=chance)
    return patch * (drawn < share).to(patch.device)


def top_entries(importance: Tensor, share: float) -> Tensor:
    """The `share` most important entries of a matrix, at least one; of equal ones the first. [out, in] -> bool."""
    count = max(1, round(share * importance.numel()))
    order = importance.flatten().sort(descending=True, stable=True).indices
    chosen = torch.zeros(importance.numel(), dtype=torch.bool, device=importance.device)
    chosen[order[:count]] = True
    return chosen.view_as(importance)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two patches in one layer.

    Attributes:
        patch: [out, in], of which a random share is retained.
        chosen: [out, in], true in its index set.
        weight: α or β.
    """

    patch: Tensor
    chosen: Tensor
    weight: float

    def without(self, other: "Side") -> Tensor:
        """weight · P[I ∖ I_other], [out, in]."""
        return self.weight * self.patch * (self.chosen & ~other.chosen)


def combined(enhance: Side, loosen: Side) -> Tensor:
    """θ' − θ = α·P_SE[I_SE ∖ I_OSM] + β·P_OSM[I_OSM ∖ I_SE] of one layer, [out, in]."""
    return enhance.without(loosen) + loosen.without(enhance)


def check_protects(enhance_energy: float, loosen_energy: float) -> None:
    """Checks that of a whole patch more is against unsafe answers than against over-safety, by squared entries.

    Raises:
        Loosens: it is not so.
        ValueError: nothing of it is against unsafe answers.
    """
    if enhance_energy == 0:
        raise ValueError(
            "the patch changes nothing against unsafe answers: what is in both index sets is in neither part; lower "
            "top_loosen or top_enhance, or raise retention or steps"
        )
    if loosen_energy > enhance_energy:
        share = loosen_energy / (loosen_energy + enhance_energy)
        raise Loosens(
            f"{share:.0%} of the patch's energy is of the part that loosens the model; it must be at most half: lower "
            "beta or top_loosen, or raise steps or ascent_margin"
        )


@dataclass(frozen=True, slots=True)
class LowRank:
    """b @ a, nearest to a matrix of all those of that rank.

    Attributes:
        a: [rank, in].
        b: [out, rank].
        energy: the matrix's sum of squares.
        kept: that of b @ a.
    """

    a: Tensor
    b: Tensor
    energy: float
    kept: float


def low_rank(matrix: Tensor, rank: int) -> LowRank:
    """The truncated singular value decomposition, each factor with the root of the singular values.

    ‖M − BA‖² is the sum of the squared singular values left out, the least that any matrix of that rank reaches
    (Eckart and Young). A matrix with fewer than `rank` rows or columns gets factors filled up with zeros.
    """
    u, values, v = torch.linalg.svd(matrix.float(), full_matrices=False)
    kept = values[:rank]
    root = kept.sqrt()
    b, a = u[:, :rank] * root, root[:, None] * v[:rank]
    missing = rank - len(kept)
    return LowRank(
        torch.nn.functional.pad(a, (0, 0, 0, missing)),
        torch.nn.functional.pad(b, (0, missing)),
        float(values.square().sum()),
        float(kept.square().sum()),
    )
