"""What is wrong with a configuration whose sections are right by themselves: settings that its method does not take."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from rheostat_training.config import DEMO
from rheostat_training.equilibrate.answers import DEMO_ORACLE
from rheostat_training.equilibrate.methods.midpo import EXPERT
from rheostat_training.equilibrate.pairs import PairPlan
from rheostat_training.limits import where

if TYPE_CHECKING:
    from rheostat_training.equilibrate.config import EquilibrateConfig

MASKED: Final = frozenset({"adpo", "arj"})
"""Methods that learn from some tokens of an answer alone, by their rewards."""
QUANTIZED: Final = frozenset({"dpo", "adpo", "arj", "bfpo"})
"""Methods that leave the base as it is, and so may have it in four bits."""
MADE_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "dpo": ("pairs", "fit", "passes"),
    "adpo": ("pairs", "rewards", "fit", "passes"),
    "arj": ("pairs", "rewards", "fit", "passes"),
    "bfpo": ("pairs", "fit", "passes"),
    "appo": ("pairs", "rewards", "reinforce"),
    "midpo": ("pairs", "fit", "router", "passes"),
    "safe-patching": ("pairs", "patch"),
}
"""What a method's adapters depend on, of a configuration."""
LONGEST_NAME: Final = 64 - len("-helpfulness")
"""Of a run whose adapters, one for each dial, are named after it."""


def said_of_data(config: "EquilibrateConfig") -> Iterator[str]:
    """Prompts that the judges do not know, or that have nothing to do with those of training."""
    data, judge = config.data, config.judge
    if DEMO_ORACLE in (judge.scorers, judge.refusals):
        yield from where(
            DEMO not in (data.source, data.held_out),
            "judge.scorers or judge.refusals is demo-oracle, and data.source is no prompts of the demo world; give "
            "scorers of your own",
        )
    yield from where(
        data.source != DEMO and data.held_out == DEMO and judge.scorers != DEMO_ORACLE,
        f"data.held_out is demo, a world that is invented, and data.source is {data.source!r}; give a file of prompts "
        "that are like these and none of them",
    )


def said_of_sections(config: "EquilibrateConfig") -> Iterator[str]:
    """Settings that no method here takes, or not this one."""
    method, passes, pairs, quantize = config.method, config.passes, config.pairs, config.base.quantize
    worded, dithered = config.generate.worded, config.fit.dither_share
    yield from where(worded > 0, f"generate.worded is {worded}; prompts are asked as they are here, so it must be 0")
    yield from where(dithered > 0, f"fit.dither_share is {dithered}; pairs are never dithered")
    yield from where(
        quantize != "none" and method not in QUANTIZED,
        f"base.quantize is {quantize!r}, which {', '.join(sorted(QUANTIZED))} can have; method is {method!r}",
    )
    yield from where(
        passes is not None and "passes" not in MADE_BY[method],
        f"passes is {passes}, and {method} makes none; leave it out",
    )
    yield from where(
        pairs.alpha != PairPlan().alpha and pairs.aim != "bfpo",
        f"pairs.alpha is {pairs.alpha:g}, which is of bfpo alone; method is {method!r}",
    )


def said_of_method(config: "EquilibrateConfig", *, loss: str | None, aim: str) -> Iterator[str]:
    """Settings that would make another method of it; `loss` and `aim` are its own."""
    method, rule, pairs = config.method, config.fit.masking.rule, config.pairs
    yield from where(
        config.fit.masking.on != (method in MASKED),
        f"fit.masking.rule is {rule!r} and method is {method!r}; masks go with {' and '.join(sorted(MASKED))}, which "
        "are nothing without them",
    )
    yield from where(
        loss not in (None, config.fit.loss), f"fit.loss is {config.fit.loss!r}; the loss of {method} is {loss!r}"
    )
    yield from where(aim != pairs.aim, f"pairs.aim is {pairs.aim!r}; that of {method} is {aim!r}")
    if method == "bfpo":
        yield from where(
            pairs.order != "helpfulness",
            f"pairs.order is {pairs.order!r}; bfpo aims at margins of the more helpful answer: give helpfulness",
        )
    if method == "arj":
        yield from where(
            pairs.per_prompt != 1, f"pairs.per_prompt is {pairs.per_prompt}; arj learns from one best answer: give 1"
        )
    if method == "safe-patching":
        yield from where(
            pairs.control_share > 0,
            f"pairs.control_share is {pairs.control_share}, and patches know no control text; give control_adapter, "
            "which goes into the blend beside the patch",
        )
    if method == "midpo":
        yield from _said_of_midpo(config)
    if method == "appo":
        yield from _said_of_appo(config)


def _said_of_midpo(config: "EquilibrateConfig") -> Iterator[str]:
    targets = config.fit.target_modules
    yield from where(
        targets != EXPERT.target_modules,
        f"fit.target_modules is {targets and list(targets)}; midpo's router is over experts on down_proj alone",
    )
    yield from where(
        config.under_control_text and len(config.name) > LONGEST_NAME,
        f"name is {config.name!r}; its experts are called {config.name}-helpfulness and so on, so it must have "
        f"{LONGEST_NAME} characters at most",
    )


def _said_of_appo(config: "EquilibrateConfig") -> Iterator[str]:
    share, source, levels = config.pairs.control_share, config.rewards.source, config.reinforce.levels
    yield from where(share > 0, f"pairs.control_share is {share}, and appo is all under control text; leave it out")
    yield from where(source != "cost-head", f"rewards.source is {source!r}; that of appo is 'cost-head'")
    yield from where(
        not config.reinforce.masking.on,
        "reinforce.masking.rule is 'none', and a mask is what appo is; `rheostat train run` does without one",
    )
    yield from where(
        len(levels) < 2 or len(set(levels)) < len(levels),
        f"reinforce.levels is {list(levels)}; an adapter obeys two levels at least, all different",
    )
