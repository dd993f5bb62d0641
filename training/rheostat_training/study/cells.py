"""What the study compares: one run a cell, which differs from the others in one thing and in its seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict

from rheostat_training.config import BadConfig, RunConfig, parse, parse_config, read_sections, with_values
from rheostat_training.limits import refuse, where

Group = Literal["methods", "scales", "alphas", "controls"]
DATA: Final = ("moec", "raw")


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A run's configuration, and what is varied.

    `methods` are settings of `fit` and `reinforce` by the method's name; each is fitted on MOEC's choice and on the
    raw set. `scales` are numbers of prompts, below that of `run`; `alphas` are weights of ExMATE's negatives.
    `compared` are the methods whose scales are compared, and which are also fitted on mismatched control texts;
    `baselines` are the modes that need no training. Figures are over `run`'s held-out prompts, the same for all seeds.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    run: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2)
    scales: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    compared: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("prompt", "rerank-16", "off")

    def __post_init__(self) -> None:
        unknown = sorted(set(self.compared) - set(self.methods))
        refuse(
            where(not self.methods, "methods are none; give one at least"),
            where(not self.seeds, "seeds are none; give one at least"),
            where(len(set(self.seeds)) < len(self.seeds), f"seeds are {self.seeds}; each makes its cells once"),
            where(bool(unknown), f"compared names {unknown}; known methods: {', '.join(self.methods)}"),
            where(
                bool(self.alphas) and "exmate" not in self.methods,
                "alphas are given, and no method is named 'exmate', whose weight they are",
            ),
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the study; `variant` is what it is compared by within its group."""

    group: Group
    method: str
    data: str
    variant: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        return f"{self.group}-{self.method}-{self.data}-{self.variant}-{self.seed}"

    @property
    def source(self) -> str:
        """Cells of one source learn from the same answers."""
        count = self.config.prompts.source.count
        return f"source-{count}-{self.seed}"


def read_study(path: Path) -> StudyPlan:
    """The plan in a YAML file.

    Raises:
        BadConfig: it cannot be read or does not fit; the message lists every error of the study itself, or else of the
            first run that does not fit.
    """
    plan = parse(StudyPlan, read_sections(path), origin=str(path))
    list(cells(plan))
    return plan


def with_seeds(plan: StudyPlan, seeds: Sequence[int] | None) -> StudyPlan:
    """The study of these of its seeds alone; of all where none is named.

    Raises:
        BadConfig: the study has no such seed.
    """
    unknown = sorted(set(seeds or ()) - set(plan.seeds))
    if unknown:
        raise BadConfig(f"seed is {unknown[0]}; the study's seeds are {', '.join(map(str, plan.seeds))}")
    return replace(plan, seeds=tuple(dict.fromkeys(seeds))) if seeds else plan


def cells(plan: StudyPlan) -> Iterator[Cell]:
    """Every run, seed by seed, so that a study that was cut short has whole seeds.

    Raises:
        BadConfig: a run's configuration does not fit, or a scale is no smaller than the run's number of prompts.
    """
    for seed in plan.seeds:
        base = parse_config({**plan.run, "seed": seed}, origin="run")
        count = base.prompts.source.count
        for scale in plan.scales:
            if count is not None and scale >= count:
                raise BadConfig(f"scales holds {scale}; run.prompts.source.count is {count}, and scales lie below it")
        for method in plan.methods:
            for data in DATA:
                yield Cell("methods", method, data, "all", seed, _of(plan, method, base, {"distil": {"method": data}}))
        for method in plan.compared:
            for scale in plan.scales:
                config = _of(plan, method, base, {"prompts": {"source": {"count": scale}}})
                yield Cell("scales", method, "moec", f"{scale}-prompts", seed, config)
            config = _of(plan, method, base, {"distil": {"control": "mismatched"}})
            yield Cell("controls", method, "moec", "mismatched", seed, config)
        for alpha in plan.alphas:
            config = _of(plan, "exmate", base, {"fit": {"alpha": alpha}})
            yield Cell("alphas", "exmate", "moec", f"alpha-{alpha}", seed, config)


def _of(plan: StudyPlan, method: str, base: RunConfig, varied: Mapping[str, Any]) -> RunConfig:
    """The run of a method, with what is varied over its own settings."""
    return with_values(with_values(base, plan.methods[method], origin=f"methods.{method}"), varied)
