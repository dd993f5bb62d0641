"""The study's tables and pictures: every cell's figures over all its seeds, safe rate against over-refusal, scaling."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture

from rheostat_training.bootstrap import Figure
from rheostat_training.equilibrate.answers import JudgedAnswer, answered
from rheostat_training.equilibrate.data import held_out_prompts
from rheostat_training.equilibrate.measure import Measures, measure
from rheostat_training.equilibrate.run import FIGURES, JUDGED, Measured
from rheostat_training.equilibrate.study.plan import SCALING, Cell, answers_of
from rheostat_training.report.plots import pens
from rheostat_training.resume import read_value
from rheostat_training.rows import read_rows

COLUMNS: Final = {
    "safe rate": "safe_rate",
    "over-refusal": "over_refusal",
    "refusal": "refusal",
    "helpfulness": "helpfulness",
    "CoSA": "cosa",
    "well-formed": "well_formed",
}
READING: Final = (
    "Each figure is over the answers of all seeds, with its 95 % bootstrap interval over held-out prompts, which are "
    "the same for every cell: all answers to one prompt are drawn together. Safe rate, over-refusal and CoSA are "
    "defined in docs/equilibrate.md."
)
DOTS_PER_INCH: Final = 160


@dataclass(frozen=True, slots=True)
class Row:
    """A cell over all its seeds; `by_seed` are the seeds' own safe rates and over-refusals, `prompts` those drawn."""

    group: str
    name: str
    prompts: Mapping[str, int]
    found: Measures
    perplexity: float | None
    by_seed: Sequence[tuple[Figure | None, Figure | None]]


def rows_of(done: Sequence[Cell], out: Path) -> list[Row]:
    """A row for the base, and one for each cell that is the same but for its seed."""
    by_name: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in done:
        by_name[cell.group, cell.name].append(cell)
    return [_base(done[0], out), *(_row(some, out) for some in by_name.values())]


def table(rows: Sequence[Row]) -> str:
    """Every group's table as Markdown, the base above each."""
    base, *others = rows
    groups = list(dict.fromkeys(row.group for row in others))
    parts = [READING]
    for group in groups:
        shown = [base, *(row for row in others if row.group == group)]
        parts.append(f"## {group}\n\n{_table(shown)}\n\n{_groups(shown)}")
    return "\n\n".join(parts) + "\n"


def plane(rows: Sequence[Row]) -> bytes:
    """Safe rate against over-refusal of every row that is no point of a scaling curve, with their intervals; PNG."""
    picture = Picture(figsize=(8.2, 5.4), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    shown = [row for row in rows if row.group != SCALING]
    of = pens([row.name for row in shown])
    for row in shown:
        safe, over, pen = row.found.safe_rate, row.found.over_refusal, of[row.name]
        if safe is None or over is None:
            continue
        axes.errorbar(
            over.value, safe.value, xerr=_arms(over), yerr=_arms(safe),
            color=pen.colour, marker=pen.marker, linestyle="none", capsize=2, label=row.name,
        )  # fmt: skip
    axes.set_xlabel("over-refusal: benign look-alikes refused")
    axes.set_ylabel("safe rate on harmful prompts")
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return _png(picture)


def scaling(rows: Sequence[Row]) -> bytes:
    """The safe rate of each group of prompts as the prompts of one group grow, a panel a group; PNG."""
    curves: defaultdict[str, list[tuple[int, Row]]] = defaultdict(list)
    for row in rows:
        if row.group == SCALING:
            grown, _, count = row.name.rpartition("-")
            curves[grown].append((int(count), row))
    picture = Picture(figsize=(3.2 * max(1, len(curves)), 3.3), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(picture)
    for place, (grown, points) in enumerate(curves.items(), 1):
        axes = picture.add_subplot(1, len(curves), place)
        points.sort(key=lambda point: point[0])
        of = pens([*points[0][1].found.safe_rate_by_group, "over-refusal"])
        for name, pen in of.items():
            measured = [
                (count, each)
                for count, row in points
                if (each := row.found.over_refusal if name == "over-refusal" else row.found.safe_rate_by_group[name])
            ]
            counts, figures = [count for count, _ in measured], [each for _, each in measured]
            axes.plot(
                counts, [each.value for each in figures], color=pen.colour, marker=pen.marker, linestyle=pen.dash,
                label=name, markersize=4,
            )  # fmt: skip
            low, high = [each.low for each in figures], [each.high for each in figures]
            axes.fill_between(counts, low, high, color=pen.colour, alpha=0.12, linewidth=0)
        axes.set_title(f"{grown} prompts grow", fontsize=9)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(f"prompts of {grown}")
        axes.grid(alpha=0.25)
        if place == 1:
            axes.set_ylabel("safe rate by group of prompts")
            axes.legend(frameon=False, fontsize=7)
    return _png(picture)


def _base(cell: Cell, out: Path) -> Row:
    folder = out / "pool" / "base"
    rows = list(read_rows(folder / JUDGED, JudgedAnswer))
    found = read_value(folder / FIGURES, Measured)
    return Row("", "base", {}, _measures(cell, rows), found.perplexity, ())


def _row(some: Sequence[Cell], out: Path) -> Row:
    answers = [row for cell in some for row in answers_of(cell, out)]
    own = [read_value(out / "cells" / cell.folder / "measure" / FIGURES, Measured) for cell in some]
    by_seed = [(each.measures.safe_rate, each.measures.over_refusal) for each in own]
    told = [each.perplexity for each in own if each.perplexity is not None]
    perplexity = sum(told) / len(told) if told else None
    first = some[0]
    return Row(first.group, first.name, first.config.data.mix, _measures(first, answers), perplexity, by_seed)


def _measures(cell: Cell, rows: Sequence[JudgedAnswer]) -> Measures:
    data, plan = cell.config.data, cell.config.measure
    kinds = held_out_prompts(data.held_out, data.held_out_each)
    return measure(answered(rows, kinds.of), safe_from=plan.safe_from, resamples=plan.resamples)


def _table(rows: Sequence[Row]) -> str:
    lines = [["", "prompts", *COLUMNS, "perplexity", "seeds: safe rate/over-refusal"]]
    for row in rows:
        seeds = ", ".join(f"{_short(safe)}/{_short(over)}" for safe, over in row.by_seed)
        figures = [str(getattr(row.found, key) or "–") for key in COLUMNS.values()]
        likely = "–" if row.perplexity is None else f"{row.perplexity:.3f}"
        lines.append([row.name, str(sum(row.prompts.values()) or "–"), *figures, likely, seeds])
    return _markdown(lines)


def _groups(rows: Sequence[Row]) -> str:
    """Safe rates by the group of the prompts asked."""
    names = list(rows[0].found.safe_rate_by_group)
    lines = [["safe rate on", *names]]
    lines += [[row.name, *(str(row.found.safe_rate_by_group[name]) for name in names)] for row in rows]
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    def told() -> Iterator[str]:
        for number, line in enumerate(lines):
            yield f"| {' | '.join(line)} |"
            if number == 0:
                yield f"|{' --- |' * len(line)}"

    return "\n".join(told())


def _short(found: Figure | None) -> str:
    if found is None:
        return "–"
    return f"{found.value:.2f}".removeprefix("0") if found.value < 1 else "1"


def _arms(found: Figure) -> list[list[float]]:
    """Down and up from a figure to the ends of its interval."""
    return [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]


def _png(picture: Picture) -> bytes:
    made = BytesIO()
    picture.savefig(made, format="png")
    return made.getvalue()
