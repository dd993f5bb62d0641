"""What a fit is to do, in one value that its folder is claimed by."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from rheostat_training.equilibrate.ama.masks import Masking
from rheostat_training.limits import STRICT, a_seed, above_zero, at_least, one_of, refuse, where
from rheostat_training.losses import IN_PAIRS, NEEDS_NEGATIVES
from rheostat_training.training_set import Dither

LossName = Literal["clm", "mate", "exmate", "unlikelihood", "dpo", "rpo", "bfpo", "arj"]
Dtype = Literal["auto", "float32", "bfloat16"]
Attention = Literal["auto", "sdpa", "eager"]


def autocasts(dtype: Dtype, device: str) -> bool:
    """Whether matrix products on this type of device are taken in bfloat16: "auto" does so where it is no CPU."""
    return dtype == "bfloat16" or (dtype == "auto" and device != "cpu")


@dataclass(frozen=True, slots=True)
class FitPlan:
    """Loss, adapter and optimiser.

    `alpha` weighs the negatives of `mate`, `exmate` and `unlikelihood`; `beta` is the temperature of `dpo` and `rpo`,
    and `tau` that of `bfpo`, which give each positive one negative. `masking` says which tokens count, by rewards that
    only the fits of `equilibrate` have. The first `head_steps` steps learn from the first `head_tokens` of each answer
    alone: they bind the dials where answers settle their levels early. `anchors` whole answers a step hold what follows
    the head to what the base says without control text, by `anchor_weight` times the divergence of the two. The adapter
    is on the linear layers that `target_modules` names, on all where it is None. It is saved at `strength` times what
    it learnt, by its `lora_alpha`: below 1 trades reach for form.

    `batch_rows` counts positives. `micro_batch_rows` is how many rows, negatives included, one forward takes at most,
    0 for the whole step; a positive never parts from its negative, so 1 is no less than 2. dtype "bfloat16" means
    autocast; "auto" is that on a GPU and float32 on a CPU. `gradient_checkpointing` computes activations twice to keep
    few. Attention "auto" is what the model was loaded with. On a CPU, for rows of about a hundred tokens, "eager" takes
    two thirds of the time of "sdpa", whose backward is slow.
    """

    __pydantic_config__ = STRICT

    loss: LossName = "exmate"
    alpha: float = 0.05
    beta: float = 0.1
    tau: float = 0.01
    masking: Masking = field(default_factory=Masking)
    negatives_per_positive: float = 0.5
    negative_distance: float = 0.5
    anchors: int = 0
    anchor_weight: float = 1.0
    dither_share: float = 0.0
    dither_width: float = 0.25
    head_steps: int = 0
    head_tokens: int = 24
    target_modules: tuple[str, ...] | None = None
    rank: int = 16
    lora_alpha: float = 32.0
    strength: float = 1.0
    dropout: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup_steps: int = 20
    steps: int = 600
    batch_rows: int = 32
    micro_batch_rows: int = 0
    max_repeats: int = 8
    clip: float = 1.0
    seed: int = 0
    dtype: Dtype = "auto"
    attention: Attention = "auto"
    gradient_checkpointing: bool = False
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        refuse(
            one_of(self, "loss", get_args(LossName)),
            one_of(self, "dtype", get_args(Dtype)),
            one_of(self, "attention", get_args(Attention)),
            at_least(self, 1, "rank", "steps", "batch_rows", "head_tokens", "max_repeats", "checkpoint_every"),
            at_least(self, 0, "alpha", "negatives_per_positive", "negative_distance", "dither_share", "dither_width"),
            at_least(self, 0, "anchors", "anchor_weight", "head_steps", "dropout", "weight_decay", "warmup_steps"),
            at_least(self, 0, "micro_batch_rows"),
            a_seed(self),
            above_zero(self, "beta", "tau", "learning_rate", "clip", "lora_alpha", "strength"),
            where(
                self.target_modules == (), "target_modules is empty; it must name a linear layer, or be null for all"
            ),
            where(self.dropout >= 1, f"dropout is {self.dropout}; it must be below 1"),
            where(self.dither_share > 1, f"dither_share is {self.dither_share}; it must be at most 1"),
        )

    @property
    def dither(self) -> Dither:
        return Dither(self.dither_share, self.dither_width, self.seed)

    @property
    def in_pairs(self) -> bool:
        """Whether each positive is compared with one negative."""
        return self.loss in IN_PAIRS

    @property
    def compares(self) -> bool:
        """Whether a step asks the base too, in pairs or by anchors."""
        return self.in_pairs or self.anchors > 0

    @property
    def negatives(self) -> float:
        """Negatives drawn a positive, on the mean."""
        return self.negatives_per_positive if self.loss in NEEDS_NEGATIVES and self.alpha else 0.0

    @property
    def weight(self) -> float:
        """The loss's one weight: τ of BFPO, β of DPO, else α."""
        if self.loss == "bfpo":
            return self.tau
        return self.beta if self.in_pairs else self.alpha

    def check_sharded(self) -> None:
        """Raises ValueError if processes that hold a sharded model together cannot make this fit.

        All of them must ask the model equally often, and some parts of a step may have nothing to ask the base.
        """
        refuse(
            where(self.in_pairs, f"loss is {self.loss!r}, which no sharded model is trained by; give another"),
            where(self.anchors > 0, f"anchors is {self.anchors}; it must be 0 where the model is sharded"),
        )

    def autocast(self, device: str) -> bool:
        """Whether matrix products on this type of device are taken in bfloat16."""
        return autocasts(self.dtype, device)

    def learning_rate_at(self, step: int) -> float:
        """Linear warmup, then half a cosine down to a hundredth."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        share = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
