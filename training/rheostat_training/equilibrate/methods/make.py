"""How each method makes its adapters from judged answers: the components that a blend is made of."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from rheostat_server.contract.dials import DialName
from rheostat_training.equilibrate.ama.appo import of_head
from rheostat_training.equilibrate.ama.cost_head import CostHead, CostPair, asked_for, cost_rewards, fit_cost_head
from rheostat_training.equilibrate.ama.implicit_rewards import implicit_rewards, pair_rows, with_rewards
from rheostat_training.equilibrate.ama.mask_page import REWARDS, read_rewards, rewarded_pairs
from rheostat_training.equilibrate.ama.masks import SHARES
from rheostat_training.equilibrate.config import EquilibrateConfig
from rheostat_training.equilibrate.measure import HARMLESS
from rheostat_training.equilibrate.methods.midpo import WARMUP, Experts
from rheostat_training.equilibrate.methods.midpo_fit import RouterReport, fit_router, load_router
from rheostat_training.equilibrate.methods.safe_patching_fit import fit_safe_patch, unsafe_rows
from rheostat_training.equilibrate.pairs import Candidate, PairPlan, PairsMade, make_pairs
from rheostat_training.fit import fit_on
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import ADAPTER
from rheostat_training.models import LoadedModel, merged
from rheostat_training.progress import Progress
from rheostat_training.reinforce import reinforce
from rheostat_training.resume import claim, plan_facts, rows_digest
from rheostat_training.rows import Pair, Prompt, write_rows
from rheostat_training.score import Judge
from rheostat_training.training_set import Positive, StepRows, TrainingRow, build_pair_set

ROUTER_FOLDER: Final = "router"
ONE: Final = "equilibrate"
"""The name of a method's only adapter."""
Candidates = Mapping[str, Sequence[Candidate]]


@dataclass(frozen=True, slots=True)
class Made:
    """An adapter, the dial that turns it up in a blend, from 0 to what was trained, and what its making took."""

    name: str
    adapter: Path
    dial: DialName
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Material:
    """What a method learns from; `kinds` are those of the prompts, by id."""

    base: LoadedModel
    prompts: Mapping[str, Prompt]
    kinds: Mapping[str, str]
    candidates: Candidates
    judge: Judge
    judge_name: str = "judge"
    base_name: str = "base"
    report_to: str = "none"
    progress: Progress = field(default_factory=Progress.silent)


def make(config: EquilibrateConfig, given: Material, out: Path) -> list[Made]:
    """Trains a configuration's method in `out`; what was made before is not made again.

    Raises:
        ValueError: the answers make no pair.
    """
    if config.method == "appo":
        return [_reinforced(config, given, out)]
    if config.method == "midpo":
        return _routed_experts(config, given, out)
    if config.method == "safe-patching":
        return [_patch(config, given, out)]
    return [_preferred(ONE, config, given, out, config.pairs, "safety")]


def blended(made: Sequence[Made], base: LoadedModel) -> LoadedModel:
    """The model that is served at full dials: the base and all of each adapter. `base` is changed by it."""
    for each in made:
        base = merged(base, each.adapter)
    return base


def routed(made: Sequence[Made], base: LoadedModel, folder: Path) -> LoadedModel | None:
    """The base with MidPO's experts and the router in `folder`; None where there is none. `base` is changed by it."""
    if not (router := folder / ROUTER_FOLDER).exists():
        return None
    by_name = {each.name: each.adapter for each in made}
    return load_router(base, Experts(by_name["safety"], by_name["helpfulness"]), router)


def _reinforced(config: EquilibrateConfig, given: Material, out: Path) -> Made:
    """APPO: an adapter rewarded for obeying its control text, from the tokens that a cost head tells."""
    found = _pairs(given, replace(config.pairs, control_share=0.0))
    positives = build_pair_set(given.base, given.prompts, found.pairs)
    head = _cost_head(config, given, found.pairs, positives, out / "cost_head")
    report = reinforce(
        given.base, None, given.prompts, given.judge, config.reinforce, out / "reinforce",
        base_name=given.base_name, judge_name=given.judge_name, token_rewards=of_head(given.base, head),
        rewards_from=f"cost head {rows_digest([head.weight.tolist(), head.bias.tolist()])}",
        report_to=given.report_to, progress=given.progress,
    )  # fmt: skip
    figures = {**asdict(report), **_mean_shares(out / "reinforce" / "log.jsonl")}
    return Made(ONE, out / "reinforce" / ADAPTER, "safety", figures=figures)


def _mean_shares(log: Path) -> dict[str, float]:
    """What the masks of a run's steps kept, the means over the steps that its log tells of."""
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    told = {name: [step[name] for step in steps if name in step] for name in SHARES}
    return {name: round(fmean(values), 4) for name, values in told.items() if values}


def _routed_experts(config: EquilibrateConfig, given: Material, out: Path) -> list[Made]:
    """MidPO: two experts, each as it was trained at its dial's end, and the router over both."""
    plan = config.pairs
    safety = _preferred("safety", config, given, out, replace(plan, order="safety"), "safety")
    helpfulness = _preferred("helpfulness", config, given, out, replace(plan, order="helpfulness"), "helpfulness")
    both = _pairs(given, replace(plan, order="equilibrate", aim="none"))
    router = config.router
    if config.passes is not None:
        steps, warmup = _schedule(config.passes, len(both.pairs), router.batch_rows)
        router = replace(router, steps=steps, warmup_steps=warmup)
    report = fit_router(
        given.base, Experts(safety.adapter, helpfulness.adapter),
        build_pair_set(given.base, given.prompts, both.pairs), router, out / ROUTER_FOLDER,
        base_name=given.base_name, report_to=given.report_to, progress=given.progress,
    )  # fmt: skip
    return [safety, replace(helpfulness, figures={**helpfulness.figures, **_told(report)})]


def _told(report: RouterReport) -> dict[str, Any]:
    return {f"router {name}": value for name, value in asdict(report).items()}


def _patch(config: EquilibrateConfig, given: Material, out: Path) -> Made:
    """SafePatching, from every unsafe answer to a harmful prompt."""
    to_harmful = {id: said for id, said in given.candidates.items() if given.kinds[id] not in HARMLESS}
    harmful = unsafe_rows(given.base, given.prompts, to_harmful, safe_from=config.pairs.safe_from)
    if not harmful:
        raise ValueError(
            f"none of the answers to {len(to_harmful)} harmful prompts is unsafe, and a patch is made of such; give "
            "more of these prompts, or sample more answers (generate.sampling.samples)"
        )
    report = fit_safe_patch(
        given.base, harmful, config.patch, out / "patch", base_name=given.base_name, progress=given.progress
    )
    return Made("patch", out / "patch" / ADAPTER, "safety", figures=asdict(report))


def _preferred(
    name: str, config: EquilibrateConfig, given: Material, out: Path, plan: PairPlan, dial: DialName
) -> Made:
    """An adapter by preferences, masked where the method is; its figures then tell what the masks of all pairs keep.

    A batch baseline is taken over all of them there, where the fit takes it over a step's.
    """
    folder = out / name
    found = _pairs(given, replace(plan, per_prompt=1) if config.method == "arj" else plan)
    write_rows(folder / "pairs.jsonl", found.pairs)
    positives = build_pair_set(given.base, given.prompts, found.pairs)
    if config.fit.masking.on:
        positives = _rewarded(config, given, positives, found.pairs, folder)
    fit, told = _fit_plan(config, len(found.pairs)), f"fit {config.method} {name}"
    report = _fit(fit, given, positives, found.pairs, folder / "fit", told=told)
    figures = {"pairs": len(found.pairs), "prompts_without": len(found.without), **report, **_shares(positives, fit)}
    return Made(name, folder / "fit" / ADAPTER, dial, figures=figures)


def _shares(positives: Sequence[Positive], plan: FitPlan) -> dict[str, float]:
    """What the masks of all answers that a fit learns from keep; nothing where there are no masks."""
    if not plan.masking.on:
        return {}
    rejected = tuple(row for item in positives for row in item.negatives if plan.in_pairs)
    every = StepRows(tuple(item.row for item in positives), rejected).masked(plan.masking, str(plan.seed))
    return {name: round(value, 4) for name, value in every.kept.items()}


def _pairs(given: Material, plan: PairPlan) -> PairsMade:
    """The pairs of all prompts.

    Raises:
        ValueError: there is none.
    """
    if not given.candidates:
        raise ValueError("no answer could be judged; look into the judge stage's judged.jsonl, and at judge.scorers")
    harmless = {id for id, kind in given.kinds.items() if kind in HARMLESS}
    found = make_pairs(given.candidates, plan, harmless=harmless)
    if not found.pairs:
        raise ValueError(
            f"none of {len(given.candidates)} prompts has answers that make a pair in the order {plan.order!r}; sample "
            "more answers (generate.sampling.samples), or give a smaller pairs.gap"
        )
    return found


def _fit_plan(config: EquilibrateConfig, pairs: int) -> FitPlan:
    if config.passes is None:
        return config.fit
    steps, warmup = _schedule(config.passes, pairs, config.fit.batch_rows)
    return replace(config.fit, steps=steps, warmup_steps=warmup)


def _schedule(passes: float, pairs: int, batch_rows: int) -> tuple[int, int]:
    """The steps of so many passes, and those of them that warm up."""
    steps = max(1, math.ceil(passes * pairs / batch_rows))
    return steps, round(WARMUP * steps)


def _fit(
    plan: FitPlan, given: Material, positives: Sequence[Positive], pairs: Sequence[Pair], out: Path, *, told: str
) -> dict[str, Any]:
    return asdict(
        fit_on(
            given.base, positives, plan, out, {"pairs": rows_digest(pairs)},
            told=told, base_name=given.base_name, report_to=given.report_to, progress=given.progress,
        )
    )  # fmt: skip


def _rewarded(
    config: EquilibrateConfig, given: Material, positives: Sequence[Positive], pairs: Sequence[Pair], folder: Path
) -> list[Positive]:
    """The pairs with the token rewards in `folder`, which are made where there are none yet.

    A run that goes on learns from the very numbers that it began with: made again, with another number of threads for
    one, they would be others by rounding, and masks and digests with them.
    """
    plans = {"rewards": plan_facts(config.rewards), "fit": plan_facts(_reference_plan(config, len(pairs)))}
    claim(folder, {"stage": "rewards", "pairs": rows_digest(pairs), "weights": given.base.digest(), **plans})
    if not (folder / REWARDS).exists():
        made = with_rewards(positives, _rewards(config, given, positives, pairs, folder))
        write_rows(folder / REWARDS, rewarded_pairs(given.base.tokenizer, pairs, made))
    return with_rewards(positives, read_rewards(folder / REWARDS, positives))


def _reference_plan(config: EquilibrateConfig, pairs: int) -> FitPlan:
    """That of the fit whose rewards are implicit."""
    plan = _fit_plan(config, pairs)
    return replace(plan, loss="dpo", masking=replace(plan.masking, rule="none"))


def _rewards(
    config: EquilibrateConfig, given: Material, positives: Sequence[Positive], pairs: Sequence[Pair], folder: Path
) -> list[tuple[float, ...]]:
    """The rewards of every answer's tokens, in the order of `pair_rows`.

    Those of a cost head are turned round under dials that ask for less than half of safety (`asked_for`); those of a
    fit are of the prompt with its control text as they are.
    """
    rows = pair_rows(positives)
    if config.rewards.source == "cost-head":
        head = _cost_head(config, given, pairs, positives, folder / "cost_head")
        found = cost_rewards(given.base, head, rows, progress=given.progress)
        return [asked_for(each, level) for each, level in zip(found, _safety_asked(positives), strict=True)]
    plan = _reference_plan(config, len(pairs))
    _fit(plan, given, positives, pairs, folder / "reference", told="fit dpo, for rewards")
    return implicit_rewards(given.base, folder / "reference" / ADAPTER, rows, plan, progress=given.progress)


def _safety_asked(positives: Sequence[Positive]) -> list[float]:
    """The safety that each answer's prompt asks for, in the order of `pair_rows`; 1 where it has no control text."""
    levels = ((item.dials.safety if item.dials else 1.0, len(item.negatives)) for item in positives)
    return [level for level, negatives in levels for _ in range(1 + negatives)]


def _cost_head(
    config: EquilibrateConfig, given: Material, pairs: Sequence[Pair], positives: Sequence[Positive], folder: Path
) -> CostHead:
    """The head in `folder`, which is made where there is none of these pairs yet: see `_rewarded`."""
    learnt = _cost_pairs(given, pairs, positives, config.pairs.safe_from)
    plan = config.rewards.cost
    facts = {"base": given.base.digest(), "pairs": rows_digest(learnt), "plan": plan_facts(plan)}
    if found := CostHead.saved(folder, facts):
        return found
    head = fit_cost_head(given.base, learnt, plan, progress=given.progress)
    head.save(folder, facts)
    return head


def _cost_pairs(
    given: Material, pairs: Sequence[Pair], positives: Sequence[Positive], safe_from: float
) -> list[CostPair]:
    """The pairs as the cost head learns them, by the levels of safety that their answers were judged to have.

    A borrowed refusal has the level that it was judged to have where it was said.
    """
    anywhere = {each.answer: each.safety for said in given.candidates.values() for each in said}
    there = {(id, each.answer): each.safety for id, said in given.candidates.items() for each in said}
    safety = {
        (pair.prompt_id, said): there.get((pair.prompt_id, said), anywhere[said])
        for pair in pairs
        for said in (pair.chosen, pair.rejected)
    }
    found = []
    for pair, item in zip(pairs, positives, strict=True):
        both: list[tuple[float, TrainingRow]] = [
            (safety[pair.prompt_id, pair.chosen], item.row),
            (safety[pair.prompt_id, pair.rejected], item.negatives[0]),
        ]
        (low, less), (high, safer) = sorted(both, key=lambda each: each[0])
        if low < high:
            found.append(CostPair(less, safer, less_is_safe=low >= safe_from, safer_is_safe=high >= safe_from))
    return found
