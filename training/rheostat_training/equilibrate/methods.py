"""How each method makes its adapters from judged answers: the components that a blend is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rheostat_server.contract.dials import DialName
from rheostat_training.equilibrate.config import EquilibrateConfig
from rheostat_training.equilibrate.cost_head import CostPair, cost_rewards, fit_cost_head
from rheostat_training.equilibrate.implicit_rewards import implicit_rewards, pair_rows, with_rewards
from rheostat_training.equilibrate.mask_page import REWARDS, rewarded_pairs
from rheostat_training.equilibrate.midpo import Experts
from rheostat_training.equilibrate.midpo_fit import RouterReport, fit_router, load_router
from rheostat_training.equilibrate.pairs import Candidate, PairPlan, make_pairs
from rheostat_training.equilibrate.safe_patching_fit import fit_safe_patch, unsafe_pairs, unsafe_rows
from rheostat_training.fit import fit_on
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import ADAPTER
from rheostat_training.models import LoadedModel, merged
from rheostat_training.progress import Progress
from rheostat_training.rows import Pair, Prompt, write_rows
from rheostat_training.training_set import Positive, TrainingRow, build_pair_set

ROUTER_FOLDER: Final = "router"
ONE: Final = "equilibrate"
"""The name of a method's only adapter."""
Candidates = Mapping[str, Sequence[Candidate]]


@dataclass(frozen=True, slots=True)
class Made:
    """An adapter, the dial that its weight follows in a blend, that weight at full dial, and what its making took."""

    name: str
    adapter: Path
    dial: DialName
    weight: float = 1.0
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Material:
    """What a method learns from."""

    base: LoadedModel
    prompts: Mapping[str, Prompt]
    candidates: Candidates
    base_name: str = "base"
    report_to: str = "none"
    progress: Progress = field(default_factory=Progress.silent)


def make(config: EquilibrateConfig, given: Material, out: Path) -> list[Made]:
    """Trains a configuration's method in `out`; what was made before is not made again.

    Raises:
        ValueError: the answers make no pair.
    """
    if config.method == "midpo":
        return _routed_experts(config, given, out)
    if config.method == "safe-patching":
        return [_patch(config, given, out)]
    return [_preferred(ONE, config, given, out, config.pairs, "safety")]


def model_of(made: Sequence[Made], base: LoadedModel, folder: Path) -> LoadedModel:
    """The model that a method's adapters in `folder` make of the base, each whole, or mixed by MidPO's router.

    `base` is changed by it.
    """
    if (router := folder / ROUTER_FOLDER).exists():
        by_name = {each.name: each.adapter for each in made}
        return load_router(base, Experts(by_name["safety"], by_name["helpfulness"]), router)
    for each in made:
        base = merged(base, each.adapter)
    return base


def _routed_experts(config: EquilibrateConfig, given: Material, out: Path) -> list[Made]:
    """MidPO: two experts, and the router over both, whose mean gates are the weights of the nearest blend."""
    plan = config.pairs
    safety = _preferred("safety", config, given, out, replace(plan, order="safety"), "safety")
    helpfulness = _preferred("helpfulness", config, given, out, replace(plan, order="helpfulness"), "helpfulness")
    both = make_pairs(given.candidates, replace(plan, order="equilibrate", aim="none"))
    report = fit_router(
        given.base, Experts(safety.adapter, helpfulness.adapter),
        build_pair_set(given.base, given.prompts, both.pairs), config.router, out / ROUTER_FOLDER,
        base_name=given.base_name, report_to=given.report_to, progress=given.progress,
    )  # fmt: skip
    return [
        replace(safety, weight=report.safety_gate),
        replace(helpfulness, weight=report.helpfulness_gate, figures={**helpfulness.figures, **_told(report)}),
    ]


def _told(report: RouterReport) -> dict[str, Any]:
    return {f"router {name}": value for name, value in asdict(report).items()}


def _patch(config: EquilibrateConfig, given: Material, out: Path) -> Made:
    """SafePatching, from the unsafe answers to harmful prompts."""
    found = make_pairs(given.candidates, replace(config.pairs, order="safety", aim="none", control_share=0.0))
    unsafe = unsafe_pairs(found.pairs, given.candidates, safe_from=config.pairs.safe_from)
    if not unsafe:
        raise ValueError(
            f"none of the answers to {len(given.candidates)} prompts is unsafe, and a patch is made of such; give more "
            "harmful prompts, or sample more answers (generate.sampling.samples)"
        )
    harmful = unsafe_rows(build_pair_set(given.base, given.prompts, unsafe))
    report = fit_safe_patch(
        given.base, harmful, config.patch, out / "patch", base_name=given.base_name, progress=given.progress
    )
    return Made("patch", out / "patch" / ADAPTER, "safety", figures=asdict(report))


def _preferred(
    name: str, config: EquilibrateConfig, given: Material, out: Path, plan: PairPlan, dial: DialName
) -> Made:
    """An adapter by preferences, masked where the method is."""
    folder = out / name
    found = make_pairs(given.candidates, plan)
    if not found.pairs:
        raise ValueError(
            f"none of {len(given.candidates)} prompts has answers that make a pair in the order {plan.order!r}; sample "
            "more answers (generate.sampling.samples), or give a smaller pairs.gap"
        )
    write_rows(folder / "pairs.jsonl", found.pairs)
    positives = build_pair_set(given.base, given.prompts, found.pairs)
    if config.fit.masking.on:
        rewards = _rewards(config, given, positives, found.pairs, folder)
        positives = with_rewards(positives, rewards)
        write_rows(folder / REWARDS, rewarded_pairs(given.base.tokenizer, found.pairs, positives))
    report = _fit(config.fit, given, positives, folder / "fit")
    figures = {"pairs": len(found.pairs), "prompts_without": len(found.without), **report}
    return Made(name, folder / "fit" / ADAPTER, dial, figures=figures)


def _fit(plan: FitPlan, given: Material, positives: Sequence[Positive], out: Path) -> dict[str, Any]:
    return asdict(
        fit_on(
            given.base, positives, plan, out, {},
            base_name=given.base_name, report_to=given.report_to, progress=given.progress,
        )
    )  # fmt: skip


def _rewards(
    config: EquilibrateConfig, given: Material, positives: Sequence[Positive], pairs: Sequence[Pair], folder: Path
) -> list[tuple[float, ...]]:
    """The rewards of every answer's tokens, in the order of `pair_rows`."""
    rows = pair_rows(positives)
    if config.rewards.source == "cost-head":
        head = fit_cost_head(
            given.base, _cost_pairs(given, pairs, positives), config.rewards.cost, progress=given.progress
        )
        head.save(folder / "cost_head", {"base": given.base.digest()})
        return cost_rewards(given.base, head, rows, progress=given.progress)
    plan = replace(config.fit, loss="dpo", masking=replace(config.fit.masking, rule="none"))
    _fit(plan, given, positives, folder / "reference")
    return implicit_rewards(given.base, folder / "reference" / ADAPTER, rows, plan, progress=given.progress)


def _cost_pairs(given: Material, pairs: Sequence[Pair], positives: Sequence[Positive]) -> list[CostPair]:
    """The pairs as the cost head learns them, by the levels of safety that their answers were judged to have."""
    safety = {(id, each.answer): each.safety for id, said in given.candidates.items() for each in said}
    found = []
    for pair, item in zip(pairs, positives, strict=True):
        both: list[tuple[float, TrainingRow]] = [
            (safety[pair.prompt_id, pair.chosen], item.row),
            (safety[pair.prompt_id, pair.rejected], item.negatives[0]),
        ]
        (low, less), (high, safer) = sorted(both, key=lambda each: each[0])
        if low < high:
            found.append(CostPair(less, safer, less_is_safe=low >= 0.5, safer_is_safe=high >= 0.5))
    return found
