"""The study of safety methods: many cells that differ in one thing, three seeds each, all from one pool of answers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout
from pydantic import ConfigDict

from rheostat_training.config import BadConfig, over, parse, read_sections
from rheostat_training.demo.unaligned import make_unaligned
from rheostat_training.equilibrate.config import EquilibrateConfig, parse_equilibrate
from rheostat_training.equilibrate.run import run_cell, run_pool
from rheostat_training.limits import refuse, where
from rheostat_training.progress import Progress
from rheostat_training.stage import Say

UNALIGNED: Final = "demo-unaligned"
BASE: Final = "base"
SCALING: Final = "scaling"
"""The group of cells that are points of curves."""
SCALED: Final = re.compile(r".+-\d+")
SHARED: Final = ("base", "generate", "judge", "measure")


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What is compared: settings of a run by group and name, over those that all `share`.

    The prompts of `pool` are answered once by the base, and each cell draws its own from them by its seed. `base` is a
    model, or "demo-unaligned": the demo's model before any safety training, which the study makes first.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    pool: Mapping[str, int]
    share: Mapping[str, Any]
    groups: Mapping[str, Mapping[str, Mapping[str, Any]]]
    base: str = UNALIGNED
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        refuse(
            where(not self.groups, "groups are none; give one at least"),
            where(not self.seeds, "seeds are none; give one at least"),
            where(len(set(self.seeds)) < len(self.seeds), f"seeds are {self.seeds}; each makes its cells once"),
            where(not any(self.pool.values()), "pool is empty; say how many prompts of each group are answered"),
            (
                f"groups.{group}.{name} has {key}, which is the pool's and all cells share; put it into share"
                for group, cells in self.groups.items()
                for name, settings in cells.items()
                for key in (*SHARED, *(f"data.{key}" for key in settings.get("data", {}) if key != "mix"))
                if key in settings or key.startswith("data.")
            ),
            where("base" in self.share, "share has base, which the plan itself names"),
            (
                f"groups.{SCALING}.{name} is no name of a scaling curve; it must be a group of prompts and a number, "
                "such as EHD-100"
                for name in self.groups.get(SCALING, {})
                if not SCALED.fullmatch(name)
            ),
            (
                f"groups.{group}.{name}.data.mix wants {count} prompts of {kind}, and the pool has "
                f"{self.pool.get(kind, 0)}"
                for group, cells in self.groups.items()
                for name, settings in cells.items()
                for kind, count in (settings.get("data", {}).get("mix") or {}).items()
                if count > self.pool.get(kind, 0)
            ),
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the study."""

    group: str
    name: str
    seed: int
    config: EquilibrateConfig

    @property
    def folder(self) -> str:
        return f"{self.group}/{self.name}/{self.seed}"


def read_study(path: Path) -> StudyPlan:
    """The plan in a YAML file.

    Raises:
        BadConfig: the file cannot be read or does not fit; the message says where.
    """
    return parse(StudyPlan, read_sections(path), origin=str(path))


def cells(plan: StudyPlan) -> Iterator[Cell]:
    """Every cell, seed by seed, so that a study that is cut short has whole seeds.

    Raises:
        BadConfig: a cell's settings do not fit.
    """
    for seed in plan.seeds:
        for group, named in plan.groups.items():
            for name, settings in named.items():
                values = over(over(plan.share, settings), {"seed": seed})
                yield Cell(group, name, seed, parse_equilibrate(values, origin=f"{group}.{name}"))


def run_study(plan: StudyPlan, out: Path, *, progress: Progress, say: Say) -> list[Cell]:
    """Makes every cell in `out`, those that are there already not again, and returns them.

    Processes may share the folder, each with seeds of its own: base and pool are made by the first.
    """
    todo = list(cells(plan))
    with in_turn(out, say):
        base = make_unaligned(out / BASE, progress=progress) if plan.base == UNALIGNED else Path(plan.base)
        pool = run_pool(_pool_config(plan, base), out / "pool", progress=progress, say=say)
    with progress.task("study", len(todo), unit="cells") as task:
        for cell in todo:
            run_cell(cell.config, pool, out / "cells" / cell.folder, progress=progress, say=say)
            task.advance(note=cell.folder)
    return todo


@contextmanager
def in_turn(out: Path, say: Say) -> Iterator[None]:
    """Lets one process at a time make what all share; those that wait say so."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        say(f"{out}: another process is at the base and the pool; this one waits for it")
        held = lock.acquire()
    with held:
        yield


def _pool_config(plan: StudyPlan, base: Path) -> EquilibrateConfig:
    settings = {"base": {"model": str(base)}, "data": {"mix": dict(plan.pool)}, "seed": 0}
    return parse_equilibrate(over(plan.share, settings), origin="share")


def only(plan: StudyPlan, seeds: Sequence[int] | None = None, groups: Sequence[str] | None = None) -> StudyPlan:
    """The plan with these seeds and groups alone, with all where none are given.

    Raises:
        BadConfig: a group is not in the plan.
    """
    if unknown := sorted({*(groups or ())} - {*plan.groups}):
        raise BadConfig(f"group is {unknown[0]!r}; known groups: {', '.join(plan.groups)}")
    kept = {name: cells for name, cells in plan.groups.items() if not groups or name in groups}
    return replace(plan, seeds=tuple(seeds or plan.seeds), groups=kept)
