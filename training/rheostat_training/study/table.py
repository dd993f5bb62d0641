"""The study's tables: each figure's mean over the seeds, every seed's own value, and the ends of their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_training.bootstrap import Figure
from rheostat_training.evaluate import FIGURES_FILE, Evaluation, EvaluationFile, read_evaluations
from rheostat_training.stage import figures_of
from rheostat_training.study.cells import Cell, Group

FIGURES: Final = ("MP", "BT", "cross_talk", "tau", "mP", "Err")
TITLES: Final[Mapping[Group, str]] = {
    "methods": "Methods, on MOEC's choice and on the raw set",
    "scales": "Scales",
    "alphas": "The weight of ExMATE's negatives",
    "controls": "Mismatched control texts",
}
READING: Final = (
    "Each figure: its mean over the seeds; every seed's value; the least and the greatest end of the seeds' own 95 % "
    "intervals over prompts. That is no interval of the mean over seeds: what another seed would give, the seeds' "
    "values show."
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one row of a table is about, and one seed's evaluation each; None where the judge could judge no answer."""

    label: str
    judge: str
    found: Sequence[Evaluation | None]


def tables(done: Sequence[Cell], out: Path) -> str:
    """Every group's table, the modes without training above the methods, as Markdown."""
    parts = [READING]
    for group, title in TITLES.items():
        compared = [*_references(group, done), *(cell for cell in done if cell.group == group)]
        entries = list(_entries(group, compared, out)) if any(cell.group == group for cell in done) else []
        if entries:
            parts.append(f"## {title}\n\n{_table(entries)}")
    parts.append(f"## What training takes\n\n{_costs([cell for cell in done if cell.group == 'methods'], out)}")
    return "\n\n".join(parts) + "\n"


def evaluations_of(cell: Cell, out: Path) -> EvaluationFile:
    """A cell's figures by mode and judge."""
    return read_evaluations(out / "cells" / cell.name / "evaluate" / FIGURES_FILE)


def _references(group: Group, done: Sequence[Cell]) -> list[Cell]:
    """The runs of the methods that those of another group differ from in one thing."""
    methods = {cell.method for cell in done if cell.group == group}
    return [
        cell
        for cell in done
        if group != "methods" and cell.group == "methods" and cell.data == "moec" and cell.method in methods
    ]


def _entries(group: Group, compared: Sequence[Cell], out: Path) -> Iterator[Entry]:
    rows: dict[tuple[str, str], list[Evaluation | None]] = {}
    trained = {_label(group, cell) for cell in compared}
    for cell in compared:
        found = evaluations_of(cell, out)
        read = [(mode, judge, each) for mode, by_judge in found.modes.items() for judge, each in by_judge.items()]
        silent = [(mode, judge, None) for mode, by_judge in found.unjudged.items() for judge in by_judge]
        for mode, judge, evaluation in (*read, *silent):
            if mode == "adapter" or group == "methods":
                label = _label(group, cell) if mode == "adapter" else mode
                rows.setdefault((label, judge), []).append(evaluation)
    for label, judge in sorted(rows, key=lambda row: row[0] in trained):
        yield Entry(label, judge, rows[label, judge])


def _label(group: Group, cell: Cell) -> str:
    variant = "" if cell.variant == "all" else cell.variant
    if cell.group != group:
        count = cell.config.prompts.source.count
        own = {"scales": f"{count}-prompts", "alphas": f"alpha-{cell.config.fit.alpha}", "controls": "matched"}
        variant = own[group]
    return " ".join(part for part in (cell.method, cell.data, variant) if part)


def _table(entries: Sequence[Entry]) -> str:
    headings = [f"{dial[0]}: {name}" for dial in DIAL_NAMES for name in FIGURES]
    lines = [f"| | judge | seeds | {' | '.join(headings)} | judged |", f"|{'---|' * (len(headings) + 4)}"]
    for entry in entries:
        found = [evaluation for evaluation in entry.found if evaluation]
        cells = [
            _spread([each.dial(dial).figures()[name] for each in found]) for dial in DIAL_NAMES for name in FIGURES
        ]
        judged = _spread([each.well_formed if each else Figure(0, 0, 0) for each in entry.found])
        seeds = str(len(found)) if len(found) == len(entry.found) else f"{len(found)} of {len(entry.found)}"
        lines.append(f"| {entry.label} | {entry.judge} | {seeds} | {' | '.join(cells)} | {judged} |")
    return "\n".join(lines)


def _costs(done: Sequence[Cell], out: Path) -> str:
    """Seconds and tokens of a step of `fit`, and seconds of `reinforce` after it, by method and data.

    A step is set against one of CLM on the same data and of the same seeds.
    """
    rows: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for cell in done:
        rows.setdefault((cell.method, cell.data), []).append(figures_of(out / "cells" / cell.name, "fit"))
    seconds = {row: fmean(each["seconds"] / each["steps"] for each in found) for row, found in rows.items()}
    lines = [
        "| | examples | seconds a step | of CLM's | tokens a step | seconds of RL |",
        "|---|---|---|---|---|---|",
    ]
    for (method, data), found in rows.items():
        mine, clm = seconds[method, data], seconds.get(("clm", data))
        figures = (
            fmean(each["positives"] for each in found),
            mine,
            f"{mine / clm:.2f}" if clm else "",
            fmean(each["tokens"] / each["steps"] for each in found),
            fmean(each.get("reinforce_seconds", 0.0) for each in found),
        )
        lines.append("| {} | {:,.0f} | {:.3f} | {} | {:,.0f} | {:,.0f} |".format(f"{method} {data}", *figures))
    return "\n".join(lines)


def _spread(figures: Sequence[Figure]) -> str:
    """See `READING`; "none" where no seed has the figure."""
    if not figures:
        return "none"
    each = ", ".join(f"{found.value:z.3f}" for found in figures)
    low, high = min(found.low for found in figures), max(found.high for found in figures)
    return f"**{fmean(found.value for found in figures):z.3f}** ({each}) [{low:z.3f}, {high:z.3f}]"
