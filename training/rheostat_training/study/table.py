"""The study's tables: means over seeds, with the ends of all seeds' 95 % intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_training.bootstrap import Figure
from rheostat_training.evaluate import FIGURES_FILE, Evaluation, Evaluations, read_evaluations
from rheostat_training.stage import figures_of
from rheostat_training.study.cells import Cell, Group

FIGURES: Final = ("MP", "BT", "mP", "Err", "cross_talk")
TITLES: Final[Mapping[Group, str]] = {
    "methods": "Methods, on MOEC's choice and on the raw set",
    "scales": "Scales",
    "alphas": "The weight of ExMATE's negatives",
    "controls": "Mismatched control texts",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What one row of a table is about, and its evaluations by judge, one a seed."""

    label: str
    by_judge: Mapping[str, Sequence[Evaluation]]


def tables(done: Sequence[Cell], out: Path) -> str:
    """Every group's table, the modes without training above the methods, as Markdown."""
    parts = []
    for group, title in TITLES.items():
        entries = list(_entries([cell for cell in done if cell.group == group], out, baselines=group == "methods"))
        if entries:
            parts.append(f"## {title}\n\n{_table(entries)}")
    parts.append(f"## What training takes\n\n{_costs([cell for cell in done if cell.group == 'methods'], out)}")
    return "\n\n".join(parts) + "\n"


def evaluations_of(cell: Cell, out: Path) -> Evaluations:
    """A cell's figures by mode and judge."""
    return read_evaluations(out / "cells" / cell.name / "evaluate" / FIGURES_FILE)


def _entries(done: Sequence[Cell], out: Path, *, baselines: bool) -> Iterator[Entry]:
    rows: dict[str, dict[str, list[Evaluation]]] = {}
    for cell in done:
        for mode, by_judge in evaluations_of(cell, out).items():
            if mode != "adapter" and not baselines:
                continue
            label = mode if mode != "adapter" else _label(cell)
            for judge, found in by_judge.items():
                rows.setdefault(label, {}).setdefault(judge, []).append(found)
    trained = {_label(cell) for cell in done}
    for label in sorted(rows, key=lambda label: label in trained):
        yield Entry(label, rows[label])


def _label(cell: Cell) -> str:
    return " ".join(part for part in (cell.method, cell.data, cell.variant if cell.variant != "all" else "") if part)


def _table(entries: Sequence[Entry]) -> str:
    headings = [f"{dial[0]}: {name}" for dial in DIAL_NAMES for name in FIGURES]
    lines = [f"| | judge | seeds | {' | '.join(headings)} | judged |", f"|{'---|' * (len(headings) + 4)}"]
    for entry in entries:
        for judge, found in entry.by_judge.items():
            cells = [_spread(found, _reader(dial, name)) for dial in DIAL_NAMES for name in FIGURES]
            judged = _spread(found, lambda evaluation: evaluation.well_formed)
            lines.append(f"| {entry.label} | {judge} | {len(found)} | {' | '.join(cells)} | {judged} |")
    return "\n".join(lines)


def _costs(done: Sequence[Cell], out: Path) -> str:
    """Seconds and tokens of a step of `fit`, and seconds of `reinforce` after it, by method and data."""
    rows: dict[str, list[Mapping[str, float]]] = {}
    for cell in done:
        rows.setdefault(_label(cell), []).append(figures_of(out / "cells" / cell.name, "fit"))
    lines = ["| | examples | seconds a step | tokens a step | seconds of RL |", "|---|---|---|---|---|"]
    for label, found in rows.items():
        figures = (
            fmean(each["positives"] for each in found),
            fmean(each["seconds"] / each["steps"] for each in found),
            fmean(each["tokens"] / each["steps"] for each in found),
            fmean(each.get("reinforce_seconds", 0.0) for each in found),
        )
        lines.append("| {} | {:,.0f} | {:.3f} | {:,.0f} | {:,.0f} |".format(label, *figures))
    return "\n".join(lines)


def _reader(dial: DialName, name: str) -> Callable[[Evaluation], Figure]:
    def read(evaluation: Evaluation) -> Figure:
        return evaluation.dial(dial).figures()[name]

    return read


def _spread(found: Sequence[Evaluation], read: Callable[[Evaluation], Figure]) -> str:
    """The mean, and an interval that holds every seed's own: wider than any of them, so that it flatters nobody."""
    figures = [read(evaluation) for evaluation in found]
    mean, low, high = fmean(f.value for f in figures), min(f.low for f in figures), max(f.high for f in figures)
    return f"{mean:.3f} ({low:.3f}–{high:.3f})"
