"""What the study compares: one run a cell, which differs from the others in one thing and in its seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from rheostat_training.config import BadConfig, RunConfig, parse_config, with_values

Group = Literal["methods", "scales", "alphas", "controls"]
DATA: Final = ("moec", "raw")


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A run's configuration, and what is varied.

    `methods` are settings of `fit` and `reinforce` by the method's name; each is fitted on MOEC's choice and on the
    raw set. `scales` are numbers of prompts, below that of `run`; `alphas` are weights of ExMATE's negatives.
    `compared` are the methods whose scales are compared, and which are also fitted on mismatched control texts;
    `baselines` are the modes that need no training.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    run: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2)
    scales: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    compared: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("prompt", "rerank-16", "off")
    resamples: int = field(default=1000)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.compared) - set(self.methods))
        if unknown:
            raise ValueError(f"compared names {unknown[0]!r}; known methods: {', '.join(self.methods)}")
        if self.alphas and "exmate" not in self.methods:
            raise ValueError("alphas are given, and no method is named 'exmate', whose weight they are")


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
        BadConfig: it cannot be read or does not fit.
    """
    try:
        plan: StudyPlan = TypeAdapter(StudyPlan).validate_python(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as exc:
        raise BadConfig(f"{path} is no study: {exc}") from exc
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
    return replace(plan, seeds=tuple(seeds)) if seeds else plan


def cells(plan: StudyPlan) -> Iterator[Cell]:
    """Every run, seed by seed, so that a study that was cut short has whole seeds."""
    for seed in plan.seeds:
        base = parse_config({**plan.run, "seed": seed}, origin="run")
        for method, settings in plan.methods.items():
            for data in DATA:
                config = with_values(base, {**settings, "distil": {"method": data}})
                yield Cell("methods", method, data, "all", seed, config)
        for method in plan.compared:
            for count in plan.scales:
                config = with_values(base, {**plan.methods[method], "prompts": {"source": {"count": count}}})
                yield Cell("scales", method, "moec", f"{count}-prompts", seed, config)
            config = with_values(base, {**plan.methods[method], "distil": {"control": "mismatched"}})
            yield Cell("controls", method, "moec", "mismatched", seed, config)
        for alpha in plan.alphas:
            settings = plan.methods["exmate"]
            config = with_values(base, {**settings, "fit": {**settings.get("fit", {}), "alpha": alpha}})
            yield Cell("alphas", "exmate", "moec", f"alpha-{alpha}", seed, config)
