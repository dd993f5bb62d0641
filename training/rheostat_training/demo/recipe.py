"""Every size and setting of a build of the demo bundle, in one value."""

from dataclasses import dataclass, field, replace

from rheostat_training.demo.base import BasePlan, BaseShape
from rheostat_training.demo.tokenizer import SAMPLE_DIALOGUES
from rheostat_training.distil import DistilPlan
from rheostat_training.fit import FitPlan
from rheostat_training.generate import SamplingPlan
from rheostat_training.scorer_fit import ScorerPlan, ScorerShape

ANSWER_TOKENS = 160


@dataclass(frozen=True, slots=True)
class SelfPlan:
    """What the base model is asked about: training prompts, as they are and under worded system messages."""

    prompts: int = 800
    sampling: SamplingPlan = field(
        default_factory=lambda: SamplingPlan(samples=16, temperature=0.85, max_new_tokens=ANSWER_TOKENS)
    )
    wishes: int = 16

    @property
    def worded_sampling(self) -> SamplingPlan:
        """One answer to each wish, drawn as the plain ones are."""
        return replace(self.sampling, samples=1, seed=self.sampling.seed + 1)


@dataclass(frozen=True, slots=True)
class TrustPlan:
    """Which answers the model stands by: those whose every token, after the first `skip`, it gave `least` or more."""

    least: float = 0.04
    skip: int = 12


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """A pair of scorers: how many labelled answers they learn from, and how."""

    rows: int
    fit: ScorerPlan


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """The final measurement: held-out prompts on a 3 x 3 grid of dials."""

    prompts: int = 300
    sampling: SamplingPlan = field(
        default_factory=lambda: SamplingPlan(samples=1, temperature=0.7, max_new_tokens=ANSWER_TOKENS, seed=7)
    )


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
    self_plan: SelfPlan = field(default_factory=SelfPlan)
    trust: TrustPlan = field(default_factory=TrustPlan)
    distil: DistilPlan = field(default_factory=lambda: DistilPlan(per_cell=240))
    fit: FitPlan = field(
        default_factory=lambda: FitPlan(
            steps=750,
            head_steps=350,
            head_tokens=12,
            learning_rate=3e-3,
            strength=0.7,
            dither_share=0.25,
            dtype="bfloat16",
            attention="eager",
            checkpoint_every=50,
        )
    )
    trials: TrialPlan = field(default_factory=TrialPlan)


def full(seed: int = 0) -> Recipe:
    """The recipe of the next bundle; the one that ships says its own in `recipe.json`."""
    return _seeded(Recipe(seed), seed)


def fast(seed: int = 0) -> Recipe:
    """A miniature of every stage in seconds: it proves that the build runs, and its model babbles."""
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
        self_plan=SelfPlan(
            prompts=6,
            sampling=SamplingPlan(samples=4, max_new_tokens=24),
            wishes=2,
        ),
        trust=TrustPlan(least=0.0),
        distil=DistilPlan(margin=0.0, per_cell=8),
        fit=FitPlan(steps=4, head_steps=2, batch_rows=4, rank=4, attention="eager"),
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
        self_plan=replace(recipe.self_plan, sampling=replace(recipe.self_plan.sampling, seed=seed)),
        fit=replace(recipe.fit, seed=seed),
        distil=replace(recipe.distil, seed=seed),
    )
