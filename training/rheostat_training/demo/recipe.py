"""Every size and setting of a build of the demo bundle, in one value."""

from dataclasses import dataclass, field, replace
from typing import Final

from rheostat_training.calibrate import CalibratePlan
from rheostat_training.config import DEMO, Evaluate, Export, Generate, Prompts, RunConfig, with_seed
from rheostat_training.demo.base import BasePlan, BaseShape
from rheostat_training.demo.tokenizer import SAMPLE_DIALOGUES
from rheostat_training.distil import DistilPlan
from rheostat_training.fit import FitPlan
from rheostat_training.generate import SamplingPlan
from rheostat_training.prompts import PromptSource
from rheostat_training.reinforce import ReinforcePlan
from rheostat_training.scorer_cut import Cuts
from rheostat_training.scorer_fit import ScorerPlan, ScorerShape

ANSWER_TOKENS = 160


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """A pair of scorers: how many labelled answers they learn from, and how."""

    rows: int
    fit: ScorerPlan


@dataclass(frozen=True, slots=True)
class SelectorPlan:
    """One scorer of both dials: how many labelled answers it learns from, which of them are cut short, and how."""

    rows: int
    fit: ScorerPlan
    cuts: Cuts = field(default_factory=Cuts)


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """The final measurement: held-out prompts on a 3 x 3 grid of dials."""

    prompts: int = 300
    sampling: SamplingPlan = field(
        default_factory=lambda: SamplingPlan(samples=1, temperature=0.7, max_new_tokens=ANSWER_TOKENS, seed=7)
    )


def _prompts(count: int, *, held_out: int) -> Prompts:
    return Prompts(PromptSource(DEMO, count=count), PromptSource(DEMO, split="held-out", count=held_out))


DEMO_RUN: Final = RunConfig(
    name="demo-control",
    prompts=_prompts(800, held_out=500),
    generate=Generate(worded=16, sampling=SamplingPlan(samples=16, temperature=0.85, max_new_tokens=ANSWER_TOKENS)),
    distil=DistilPlan(per_cell=240, least_probability=0.04),
    fit=FitPlan(
        steps=750,
        head_steps=350,
        head_tokens=12,
        learning_rate=3e-3,
        strength=0.7,
        dither_share=0.25,
        dtype="bfloat16",
        attention="eager",
        checkpoint_every=50,
    ),
    reinforce=ReinforcePlan(steps=60, learning_rate=1e-3, beta=0.1, dtype="bfloat16", attention="eager"),
    evaluate=Evaluate(
        modes=("adapter", "prompt"),
        judges={"judges": "demo-judges", "oracle": "demo-oracle"},
        sampling=SamplingPlan(samples=1, temperature=0.7, max_new_tokens=ANSWER_TOKENS, seed=7),
    ),
    export=Export(base_name=DEMO),
)
"""The run that makes the demo's adapter; the build puts its own base model and scorers in."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All plans of a build, one a stage."""

    seed: int
    tokenizer_sample: int = SAMPLE_DIALOGUES
    base: BasePlan = field(default_factory=BasePlan)
    scorers: JudgePlan = field(
        default_factory=lambda: JudgePlan(9000, ScorerPlan(ScorerShape("bert", hidden=96, layers=2), epochs=4))
    )
    judges: JudgePlan = field(
        default_factory=lambda: JudgePlan(
            6000, ScorerPlan(ScorerShape("llama", hidden=64, layers=3, heads=4), epochs=3)
        )
    )
    selector: SelectorPlan = field(
        default_factory=lambda: SelectorPlan(
            12_000,
            ScorerPlan(ScorerShape("bert", hidden=96, layers=2), epochs=5, batch_rows=32, learning_rate=1.5e-3),
        )
    )
    run: RunConfig = field(default_factory=lambda: DEMO_RUN)
    trials: TrialPlan = field(default_factory=TrialPlan)


def full(seed: int = 0) -> Recipe:
    """The recipe of the next bundle; the one that ships says its own in `recipe.json`."""
    return _seeded(Recipe(seed), seed)


def fast(seed: int = 0) -> Recipe:
    """A miniature of every stage in seconds: it proves that the build runs, and its model babbles.

    The few answers of a babbler are no negatives of each other, hence CLM.
    """
    recipe = Recipe(
        seed,
        tokenizer_sample=500,
        base=BasePlan(
            BaseShape(hidden=64, inner=128, layers=2, heads=2, kv_heads=1),
            steps=40,
            rows=8,
        ),
        scorers=JudgePlan(64, ScorerPlan(ScorerShape("bert", hidden=32, layers=1, heads=2), epochs=1)),
        judges=JudgePlan(64, ScorerPlan(ScorerShape("llama", hidden=32, layers=1, heads=2), epochs=1)),
        selector=SelectorPlan(64, ScorerPlan(ScorerShape("bert", hidden=32, layers=1, heads=2), epochs=1)),
        run=replace(
            DEMO_RUN,
            prompts=_prompts(6, held_out=8),
            generate=Generate(worded=2, sampling=SamplingPlan(samples=4, max_new_tokens=24)),
            distil=DistilPlan(margin=0.0, per_cell=8),
            fit=FitPlan(loss="clm", steps=4, head_steps=2, batch_rows=4, rank=4, attention="eager"),
            reinforce=ReinforcePlan(
                steps=2, prompts_per_step=2, samples=2, batch_rows=4, max_new_tokens=24, attention="eager"
            ),
            evaluate=replace(
                DEMO_RUN.evaluate, prompts=4, sampling=SamplingPlan(samples=1, temperature=0.7, max_new_tokens=24)
            ),
            calibrate=CalibratePlan(points=2, prompts=4, check_dials=2, resamples=4),
        ),
        trials=TrialPlan(prompts=4, sampling=SamplingPlan(samples=1, temperature=0.7, max_new_tokens=24)),
    )
    return _seeded(recipe, seed)


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    """The build's seed reaches every stage but the trials, which ask the same of every build."""
    return replace(
        recipe,
        base=replace(recipe.base, seed=seed),
        scorers=replace(recipe.scorers, fit=replace(recipe.scorers.fit, seed=seed)),
        judges=replace(recipe.judges, fit=replace(recipe.judges.fit, seed=seed + 1)),
        selector=replace(recipe.selector, fit=replace(recipe.selector.fit, seed=seed + 2)),
        run=with_seed(recipe.run, seed),
    )
