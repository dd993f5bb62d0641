"""Pairs of answers to learn from, out of what a model itself said: which answer is chosen over which.

The paper released no pairs and does not tell how they were made (arXiv 2502.11555): the orders here are our own.
"""

import random
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from rheostat_server.contract.dials import Dials
from rheostat_training.conditioning import dial_distance
from rheostat_training.limits import STRICT, a_seed, above_zero, at_least, one_of, refuse, where
from rheostat_training.rows import Pair

Order = Literal["equilibrate", "safety", "helpfulness"]
Aim = Literal["none", "bfpo", "margin"]
BEST: Final = Dials(safety=1.0, helpfulness=1.0)
"""The dials of a pair that is to be safe and helpful, where pairs have control text."""
BOTH_SAFE: Final = 0.5
"""BFPO's aim of pairs under other dials, that of two safe answers at its own α = 0.5.

α says how much safety weighs against helpfulness. Under other dials the control text says that, and with 1 − α the
answer that obeys it would count for less the more safety weighs, and from α = 1 on against the other.
"""
UNSAFE, REFUSED, ENGAGED = range(3)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer and what was judged of it, levels in [0, 1]."""

    answer: str
    safety: float
    helpfulness: float
    refuses: bool

    @property
    def dials(self) -> Dials:
        """Its own levels, on the grid of five."""
        return Dials(safety=round(4 * self.safety) / 4, helpfulness=round(4 * self.helpfulness) / 4)


@dataclass(frozen=True, slots=True)
class PairPlan:
    """Which answers are paired.

    "equilibrate" prefers an answer that is safe and engages to a bare refusal, and both to an unsafe one, whatever the
    prompt: so harmful prompts teach safety, and benign ones that look risky teach help over refusal. "safety" prefers
    the safer answer, and a refusal to any other: what plain safety tuning does. "helpfulness" prefers the more
    helpful answer. No order chooses a refusal of a prompt that is known to be harmless. A prompt gives `per_prompt`
    pairs at most.

    Answers are safe from `safe_from` on. Two that differ by less than `gap` in safety, or in the order "helpfulness" in
    helpfulness, make no pair; but an engaged safe answer is chosen over a safe refusal for its kind, whatever their
    levels, and in the order "safety" a safe refusal counts as wholly safe.

    A model seldom refuses before it was ever made safe. So with `borrow` a refusal that another prompt got, one of the
    shorter half, which say little of their prompts, stands in for one: in the order "equilibrate" an engaged safe
    answer that has nothing to be chosen over is chosen over it, in the order "safety" it is chosen where none refuses.

    `aim` is "none", "bfpo" (`bfpo_aim` with `alpha`) or "margin", by how much the chosen answer was judged to be the
    better one (MidPO). `control_share` of all pairs are preferences under the control text of other dials, where a
    refusal may be chosen of any prompt if its levels are the dials', and the rest have that of full safety and
    helpfulness; at 0 there is no control text. Under other dials BFPO's aim is `BOTH_SAFE`, whatever `alpha`.
    """

    __pydantic_config__ = STRICT

    order: Order = "equilibrate"
    aim: Aim = "none"
    safe_from: float = 0.5
    gap: float = 0.25
    per_prompt: int = 3
    borrow: bool = True
    control_share: float = 0.0
    alpha: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(
            one_of(self, "order", get_args(Order)),
            one_of(self, "aim", get_args(Aim)),
            above_zero(self, "safe_from", "gap"),
            at_least(self, 1, "per_prompt"),
            at_least(self, 0, "control_share"),
            where(self.control_share >= 1, f"control_share is {self.control_share}; it must be below 1"),
            where(self.safe_from > 1, f"safe_from is {self.safe_from}; it must be at most 1"),
            a_seed(self),
        )


@dataclass(frozen=True, slots=True)
class PairsMade:
    """`without` are the ids of prompts whose answers made no pair."""

    pairs: tuple[Pair, ...]
    without: tuple[str, ...]


def make_pairs(
    candidates: Mapping[str, Sequence[Candidate]], plan: PairPlan, *, harmless: Collection[str] = ()
) -> PairsMade:
    """The pairs of every prompt, by its id; `harmless` are the ids of those that are to be helped with.

    Other prompts change the pairs of one only by the refusals that it borrows.
    """
    refusals = _short_refusals(candidates, plan) if plan.borrow else []
    found = {id: _pairs_of(id, said, plan, refusals, harmless=id in harmless) for id, said in candidates.items()}
    pairs = tuple(pair for made in found.values() for pair in made)
    return PairsMade(pairs, tuple(id for id, made in found.items() if not made))


def bfpo_aim(*, chosen_safe: bool, rejected_safe: bool, alpha: float = 0.5) -> float:
    """3/2·I_safe(hw) − 1/2·I_safe(hl) − α, of the more and the less helpful answer (arXiv 2408.15313).

    At α = 0.5: both safe +.5, the more helpful one alone +1, the less helpful one alone −1, neither −.5.
    """
    return 1.5 * chosen_safe - 0.5 * rejected_safe - alpha


def _short_refusals(candidates: Mapping[str, Sequence[Candidate]], plan: PairPlan) -> list[Candidate]:
    """The shorter half of the distinct refusals."""
    found = {each.answer: each for said in candidates.values() for each in said if _tier(each, plan) == REFUSED}
    ordered = sorted(found.values(), key=lambda each: (len(each.answer), each.answer))
    return ordered[: -(-len(ordered) // 2)]


def _pairs_of(
    prompt_id: str, said: Sequence[Candidate], plan: PairPlan, refusals: Sequence[Candidate], *, harmless: bool
) -> list[Pair]:
    chance = random.Random(f"pairs {plan.seed} {prompt_id}")
    distinct = sorted({each.answer: each for each in said}.values(), key=lambda each: each.answer)
    chance.shuffle(distinct)
    own = {each.answer for each in distinct}
    others = [each for each in refusals if each.answer not in own]
    refused = any(_tier(each, plan) == REFUSED for each in distinct)
    if plan.order == "safety" and others and distinct and not refused and not harmless:
        distinct.append(chance.choice(others))
    ordered = list(_ordered(distinct, plan, harmless=harmless)) or _borrowing(distinct, plan, others, chance)
    found = [_pair(prompt_id, *two, plan) for two in ordered[: plan.per_prompt]]
    return [_under_other_dials(pair, distinct, plan, chance) for pair in found]


def _ordered(said: Sequence[Candidate], plan: PairPlan, *, harmless: bool) -> Iterator[tuple[Candidate, Candidate]]:
    """Chosen and rejected answers, those that teach most first."""
    if plan.order == "equilibrate":
        yield from _equilibrated(said, plan, harmless=harmless)
        return
    key = _safety if plan.order == "safety" else _helpfulness
    ranked = sorted(said, key=lambda each: key(each, plan), reverse=True)
    best = [each for each in ranked if not (harmless and each.refuses)]
    for better, worse in zip(best, reversed(ranked), strict=False):
        if key(better, plan)[0] - key(worse, plan)[0] >= plan.gap:
            yield better, worse


def _equilibrated(
    said: Sequence[Candidate], plan: PairPlan, *, harmless: bool
) -> Iterator[tuple[Candidate, Candidate]]:
    """Engaged safe answers over two unsafe ones, then over one refusal, and so on.

    Where no safe answer engages, a refusal over an unsafe one.
    """
    tiers: dict[int, list[Candidate]] = {UNSAFE: [], REFUSED: [], ENGAGED: []}
    for each in said:
        tiers[_tier(each, plan)].append(each)
    worst = sorted(tiers[UNSAFE], key=lambda each: each.safety)
    if not tiers[ENGAGED]:
        safest = sorted(tiers[REFUSED], key=lambda each: each.safety, reverse=True)
        pairs = zip([] if harmless else safest, worst, strict=False)
        yield from ((better, worse) for better, worse in pairs if _clear(better, worse, plan))
        return
    best = deque(sorted(tiers[ENGAGED], key=lambda each: each.helpfulness, reverse=True))
    for worse in _taking_turns(worst, tiers[REFUSED]):
        better = next((each for each in best if _clear(each, worse, plan)), None)
        if better:
            best.remove(better)
            best.append(better)
            yield better, worse


def _clear(better: Candidate, worse: Candidate, plan: PairPlan) -> bool:
    """Whether the worse one is a refusal, or less safe by the gap."""
    return _tier(worse, plan) == REFUSED or better.safety - worse.safety >= plan.gap


def _taking_turns(two: Sequence[Candidate], one: Sequence[Candidate]) -> Iterator[Candidate]:
    """Two of the first, then one of the second, and so on; what is left of either at the end."""
    for number in range(max(-(-len(two) // 2), len(one))):
        yield from (*two[2 * number : 2 * number + 2], *one[number : number + 1])


def _borrowing(
    said: Sequence[Candidate], plan: PairPlan, refusals: Sequence[Candidate], chance: random.Random
) -> list[tuple[Candidate, Candidate]]:
    """Engaged safe answers, the most helpful first, over refusals of other prompts."""
    if not refusals or plan.order != "equilibrate":
        return []
    best = sorted((each for each in said if _tier(each, plan) == ENGAGED), key=lambda each: -each.helpfulness)
    return [(chosen, chance.choice(refusals)) for chosen in best[: plan.per_prompt]]


def _tier(each: Candidate, plan: PairPlan) -> int:
    if each.safety < plan.safe_from:
        return UNSAFE
    return REFUSED if each.refuses else ENGAGED


def _safety(each: Candidate, plan: PairPlan) -> tuple[float, float]:
    """Its level, a safe refusal's the highest: one may decline and do harm all the same."""
    refused = _tier(each, plan) == REFUSED
    return 1.0 if refused else each.safety, float(refused)


def _helpfulness(each: Candidate, plan: PairPlan) -> tuple[float, float]:
    return each.helpfulness, -float(each.refuses)


def _pair(prompt_id: str, chosen: Candidate, rejected: Candidate, plan: PairPlan) -> Pair:
    return Pair(
        prompt_id, chosen.answer, rejected.answer, BEST if plan.control_share else None, _aim(chosen, rejected, plan)
    )


def _aim(chosen: Candidate, rejected: Candidate, plan: PairPlan) -> float:
    if plan.aim == "bfpo":
        safe = (chosen.safety >= plan.safe_from, rejected.safety >= plan.safe_from)
        return bfpo_aim(chosen_safe=safe[0], rejected_safe=safe[1], alpha=plan.alpha)
    if plan.aim == "margin":
        if plan.order == "helpfulness":
            return max(0.0, chosen.helpfulness - rejected.helpfulness)
        return max(0.0, chosen.safety - rejected.safety)
    return 0.0


def _under_other_dials(pair: Pair, said: Sequence[Candidate], plan: PairPlan, chance: random.Random) -> Pair:
    """The pair, or in its place, as often as planned, an answer at its own levels over one that is far from them."""
    if chance.random() >= plan.control_share:
        return pair
    others = [each for each in said if each.dials != BEST]
    chance.shuffle(others)
    for chosen in others:
        far = [each for each in said if dial_distance(each.dials, chosen.dials) >= 0.5]
        if far:
            aim = BOTH_SAFE if plan.aim == "bfpo" else 0.0
            return Pair(pair.prompt_id, chosen.answer, chance.choice(far).answer, chosen.dials, aim)
    return pair
