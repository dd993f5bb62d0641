"""Draws FDC's training mixture: so many prompts of each group, general ones by ratio, and what was short.

Read `make_mixture` first.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from rheostat_training.equilibrate.fdc.blend_prompts import Blends
from rheostat_training.equilibrate.fdc.budget import GENERAL_A_PROMPT, Budget, Ratio, general_wanted
from rheostat_training.equilibrate.fdc.group import HARMFUL, Group, GroupedPrompt
from rheostat_training.limits import STRICT, a_seed, refuse, where
from rheostat_training.prompts import content_key
from rheostat_training.resume import write_json
from rheostat_training.rows import Prompt, write_rows

MIXTURE_FILE: Final = "mixture.jsonl"
MIX_REPORT_FILE: Final = "report.json"
WRITTEN: Final = (MIXTURE_FILE, MIX_REPORT_FILE)

MakeBlends = Callable[[Sequence[Prompt], Sequence[Prompt], int, Collection[str]], Blends]
"""Blends of explicit and implicit prompts, at most so many, none of which has one of these content keys."""


@dataclass(frozen=True, slots=True)
class MixPlan:
    """What is to be drawn.

    `general` is how many general prompts; None takes what the ratios ask for. `look_alikes` is how many benign prompts
    that look risky; None takes all. With `keep_ratio` a group that is short makes the others smaller, so that the
    budget's proportions hold. Labels that are less sure than `least_sure` are left out; those that do not tell, a
    judge's, stay.
    """

    __pydantic_config__ = STRICT

    budget: Budget
    general: int | None = None
    look_alikes: int | None = None
    keep_ratio: bool = False
    least_sure: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        general, alike, least = self.general, self.look_alikes, self.least_sure
        refuse(
            where(general is not None and general < 0, f"general is {general}; it must be 0 or more"),
            where(alike is not None and alike < 0, f"look_alikes is {alike}; it must be 0 or more"),
            where(not 0 <= least <= 1, f"least_sure is {least}; it must be from 0 to 1"),
            a_seed(self),
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """How many prompts were wanted, were there and were drawn."""

    wanted: int
    there: int
    drawn: int
    blended: int = 0

    @property
    def short(self) -> int:
        return self.wanted - self.drawn


@dataclass(frozen=True, slots=True)
class Mixture:
    """Rows in an order that mixes the groups, general ones as those of no risk, and what was short.

    The ratios are of general prompts without look-alikes.
    """

    rows: Sequence[GroupedPrompt]
    groups: Mapping[Group, Drawn]
    general: Drawn
    look_alikes: Drawn
    left_out: Mapping[str, int]
    blends: Blends | None = None

    @property
    def ratios(self) -> dict[Group, Ratio]:
        """Of the groups that some prompt is of."""
        return {
            group: Ratio(round(self.general.drawn / self.groups[group].drawn, 2), *GENERAL_A_PROMPT[group])
            for group in HARMFUL
            if self.groups[group].drawn
        }

    @property
    def _drawn(self) -> dict[str, Drawn]:
        groups = {group.value: found for group, found in self.groups.items()}
        return {**groups, "general": self.general, Group.LOOK_ALIKE.value: self.look_alikes}

    def facts(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "prompts": {name: {**asdict(found), "short": found.short} for name, found in self._drawn.items()},
            "ratios": {
                group.value: {**asdict(ratio), "is_kept": ratio.is_kept} for group, ratio in self.ratios.items()
            },
            "left_out": dict(self.left_out),
            "blends": _blend_facts(self.blends) if self.blends else None,
        }

    def told(self) -> list[str]:
        """The report in lines for a person."""
        lines = [_line(name, found) for name, found in self._drawn.items()]
        for group, ratio in self.ratios.items():
            if not ratio.is_kept:
                lines.append(
                    f"{group.value}: 1 to {ratio.value:g} general; the paper has {ratio.fewest} to {ratio.most}"
                )
        left_out = ", ".join(f"{count:,} {what}" for what, count in self.left_out.items() if count)
        return [*lines, *([f"left out: {left_out}"] if left_out else [])]


def make_mixture(
    grouped: Iterable[GroupedPrompt],
    general: Mapping[str, Prompt] | None,
    plan: MixPlan,
    make_blends: MakeBlends | None = None,
) -> Mixture:
    """Draws by seed and id: a smaller budget draws some of a larger one's prompts, whatever else is in the files.

    `general` are the general prompts; None takes those of group none. `make_blends` is asked for what MHD is short of.

    Raises:
        ValueError: one id is that of two different prompts.
    """
    pools, left_out = _pools(grouped, plan)
    blends = _blended(pools, plan, make_blends)
    potent = [row for row in blends.rows if _is_sure(row, plan)] if blends else []
    left_out["labels not sure enough"] += len(blends.rows) - len(potent) if blends else 0
    there = {group: [*pools[group], *(potent if group is Group.MHD else ())] for group in HARMFUL}
    counts = _counts(plan, {group: len(rows) for group, rows in there.items()})
    taken = {group: there[group][: counts[group]] for group in HARMFUL}
    groups = {
        group: Drawn(
            plan.budget.counts[group], len(rows), len(taken[group]), sum(bool(row.blended_from) for row in taken[group])
        )
        for group, rows in there.items()
    }
    alike = pools[Group.LOOK_ALIKE]
    apart = {**there, Group.LOOK_ALIKE: alike}
    others = pools[Group.NONE] if general is None else _ranked(_as_general(general, apart), plan.seed)
    wanted = (
        general_wanted({group: len(rows) for group, rows in taken.items()}) if plan.general is None else plan.general
    )
    alike_wanted = len(alike) if plan.look_alikes is None else plan.look_alikes
    if general is not None:
        left_out["of group none, beside general prompts of their own"] = len(pools[Group.NONE])
    rows = _ranked(chain(*taken.values(), others[:wanted], alike[:alike_wanted]), plan.seed)
    return Mixture(rows, groups, _first(others, wanted), _first(alike, alike_wanted), left_out, blends)


def write_mixture(mixture: Mixture, plan: MixPlan, out: Path) -> Path:
    """Writes `out/mixture.jsonl`, a prompt file, and `out/report.json` with the plan beside what came of it."""
    write_json(out / MIX_REPORT_FILE, {"plan": asdict(plan), **mixture.facts()})
    return write_rows(out / MIXTURE_FILE, mixture.rows)


def _pools(grouped: Iterable[GroupedPrompt], plan: MixPlan) -> tuple[dict[Group, list[GroupedPrompt]], dict[str, int]]:
    """The prompts of each group in the order in which they are drawn, and how many are left out."""
    by_key: dict[str, GroupedPrompt] = {}
    ids: dict[str, str] = {}
    left_out = {"duplicates": 0, "labels not sure enough": 0}
    for row in grouped:
        key = content_key(row.messages)
        if ids.setdefault(row.id, key) != key:
            raise ValueError(f"id {row.id!r} is that of two different prompts; ids must be unique over all files")
        if key in by_key:
            left_out["duplicates"] += 1
        elif not _is_sure(row, plan):
            left_out["labels not sure enough"] += 1
        else:
            by_key[key] = row
    ranked = _ranked(by_key.values(), plan.seed)
    return {group: [row for row in ranked if row.group is group] for group in Group}, left_out


def _is_sure(row: GroupedPrompt, plan: MixPlan) -> bool:
    return row.sure is None or row.sure >= plan.least_sure


def _blended(
    pools: Mapping[Group, Sequence[GroupedPrompt]], plan: MixPlan, make_blends: MakeBlends | None
) -> Blends | None:
    missing = plan.budget.mhd - len(pools[Group.MHD])
    if make_blends is None or missing <= 0:
        return None
    explicit, implicit = ([row.prompt for row in pools[group]] for group in (Group.EHD, Group.IHD))
    known = {content_key(row.messages) for rows in pools.values() for row in rows}
    return make_blends(explicit, implicit, missing, known)


def _counts(plan: MixPlan, there: Mapping[Group, int]) -> dict[Group, int]:
    """How many of each group are drawn."""
    wanted = plan.budget.counts
    share = min((there[group] / count for group, count in wanted.items() if count), default=1.0)
    if not plan.keep_ratio or share >= 1:
        return {group: min(count, there[group]) for group, count in wanted.items()}
    return {group: min(round(count * share), there[group]) for group, count in wanted.items()}


def _first(there: Sequence[GroupedPrompt], wanted: int) -> Drawn:
    return Drawn(wanted, len(there), min(wanted, len(there)))


def _as_general(prompts: Mapping[str, Prompt], apart: Mapping[Group, Sequence[GroupedPrompt]]) -> list[GroupedPrompt]:
    """General prompts but for those in the groups `apart`; one whose id one of theirs has gets an id from its words."""
    known = {content_key(row.messages) for rows in apart.values() for row in rows}
    ids = {row.id for rows in apart.values() for row in rows}
    keys = {id: content_key(prompt.messages) for id, prompt in prompts.items()}
    return [
        GroupedPrompt(f"general-{keys[id][:16]}" if id in ids else id, prompt.messages, Group.NONE)
        for id, prompt in prompts.items()
        if keys[id] not in known
    ]


def _ranked(rows: Iterable[GroupedPrompt], seed: int) -> list[GroupedPrompt]:
    """Rows in an order that looks random and follows from seed and id alone."""
    return sorted(rows, key=lambda row: (hashlib.sha256(f"mix {seed} {row.id}".encode()).digest(), row.id))


def _line(name: str, found: Drawn) -> str:
    short = f", {found.short:,} short" if found.short else ""
    blended = f", {found.blended:,} of them blended" if found.blended else ""
    return f"{name}: {found.drawn:,} of {found.wanted:,} wanted{blended}; {found.there:,} there{short}"


def _blend_facts(blends: Blends) -> dict[str, int]:
    return {
        "kept": len(blends.rows),
        "pairs": blends.pairs,
        "failed": blends.failed,
        "weak": blends.weak,
        "unlabelled": blends.unlabelled,
        "repeated": blends.repeated,
    }
