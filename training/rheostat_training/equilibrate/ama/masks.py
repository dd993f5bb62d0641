"""Which tokens of an answer a loss learns from, by their rewards: adaptive message-wise alignment (AMA).

Source: Equilibrate RLHF (arXiv 2502.11555). Its released code compares each reward with a baseline, token by token; its
figure shows segments with hysteresis, whose rule is our reconstruction. A masked token stays in the context.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from rheostat_training.limits import STRICT, at_least, one_of, refuse, where

Mask = tuple[bool, ...]
Rewards = Sequence[float]
Rule = Literal["none", "segment", "random"]
Baseline = Literal["zero", "batch"]
KEPT_SHARE: Final = "kept_share"
KEPT_CHOSEN: Final = "kept_chosen"
KEPT_REJECTED: Final = "kept_rejected"
KEPT_WHOLE: Final = "kept_whole"
SHARES: Final = (KEPT_SHARE, KEPT_CHOSEN, KEPT_REJECTED, KEPT_WHOLE)
"""The names of `Masked.shares`."""


@dataclass(frozen=True, slots=True)
class Masking:
    """How masks are made of token rewards r.

    "segment" keeps, of a chosen answer, the tokens whose side is +1, and of a rejected one those whose side is −1: a
    token's side is that of r − b where it is farther than `delta` from 0, else that of the token before. `delta` 0
    judges each token by itself, and one at the baseline is on neither side. The baseline b is 0, or the mean over all
    tokens of the step's answers. "random" keeps
    as many tokens as "segment" would, drawn at random: what a mask must beat. An answer of which nothing would be left
    is kept whole.
    """

    __pydantic_config__ = STRICT

    rule: Rule = "none"
    delta: float = 0.3
    baseline: Baseline = "zero"

    def __post_init__(self) -> None:
        refuse(
            one_of(self, "rule", get_args(Rule)),
            one_of(self, "baseline", get_args(Baseline)),
            at_least(self, 0, "delta"),
            where(self.delta == float("inf"), "delta is inf; no token would be farther from the baseline"),
        )

    @property
    def on(self) -> bool:
        return self.rule != "none"


def sides(rewards: Rewards, *, delta: float, baseline: float = 0.0) -> tuple[int, ...]:
    """Each token's side, +1 or −1, and 0 before the first that is clear.

    s_t = +1 if r_t − b > δ, −1 if r_t − b < −δ, else s_{t−1}; at δ = 0, else 0.
    """
    side, found = 0, []
    for reward in rewards:
        above = reward - baseline
        unclear = side if delta else 0
        side = 1 if above > delta else -1 if above < -delta else unclear
        found.append(side)
    return tuple(found)


def kept(rewards: Rewards, *, chosen: bool, delta: float, baseline: float = 0.0) -> Mask | None:
    """The tokens that the loss counts; None where there would be none."""
    wanted = 1 if chosen else -1
    mask = tuple(side == wanted for side in sides(rewards, delta=delta, baseline=baseline))
    return mask if any(mask) else None


def kept_at_random(mask: Mask, chance: random.Random) -> Mask:
    """As many tokens as `mask` keeps, at places drawn at random; of fewer, some of the same."""
    places = set(chance.sample(range(len(mask)), len(mask))[: sum(mask)])
    return tuple(place in places for place in range(len(mask)))


@dataclass(frozen=True, slots=True)
class Masked:
    """The masks of some answers, in their order.

    `chosen` says which are of chosen answers, `whole` which are of answers that are kept whole because nothing would be
    left of them: a one-sided loss collapses.
    """

    masks: tuple[Mask, ...]
    chosen: tuple[bool, ...]
    whole: tuple[bool, ...]

    def shares(self) -> dict[str, float]:
        """What is kept, by its name in a log: of all tokens, of those of chosen answers and of those of rejected ones.

        A side that is not there is left out. The last share is that of the answers which are kept whole.
        """
        by_side = {
            name: share([mask for mask, chosen in zip(self.masks, self.chosen, strict=True) if chosen == side])
            for name, side in ((KEPT_CHOSEN, True), (KEPT_REJECTED, False))
            if side in self.chosen
        }
        return {KEPT_SHARE: share(self.masks), **by_side, KEPT_WHOLE: _mean(self.whole)}


def masks(rows: Sequence[tuple[Rewards, bool]], masking: Masking, *, seeds: Sequence[str] = ()) -> Masked:
    """The masks of a step's answers, each given by its rewards and whether it is a chosen one.

    `seeds` are what random masks are drawn by, one an answer.
    """
    chosen = tuple(side for _, side in rows)
    if not masking.on:
        return Masked(tuple((True,) * len(rewards) for rewards, _ in rows), chosen, (False,) * len(rows))
    baseline = _mean([reward for rewards, _ in rows for reward in rewards]) if masking.baseline == "batch" else 0.0
    found = [kept(rewards, chosen=side, delta=masking.delta, baseline=baseline) for rewards, side in rows]
    made = tuple(mask or (True,) * len(rewards) for mask, (rewards, _) in zip(found, rows, strict=True))
    if masking.rule == "random":
        chances = (random.Random(f"masks {seed}") for seed in seeds)
        made = tuple(kept_at_random(mask, chance) for mask, chance in zip(made, chances, strict=True))
    return Masked(made, chosen, tuple(mask is None for mask in found))


def share(found: Sequence[Mask]) -> float:
    """The share of tokens kept; 1 where there are none."""
    tokens = sum(map(len, found))
    return sum(map(sum, found)) / tokens if tokens else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
