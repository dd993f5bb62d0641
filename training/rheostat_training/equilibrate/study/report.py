"""The study's tables and pictures: every cell's figures over all its seeds, safe rate against over-refusal, scaling."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture

from rheostat_training.bootstrap import Figure
from rheostat_training.equilibrate.ama.masks import KEPT_CHOSEN, KEPT_REJECTED, KEPT_WHOLE
from rheostat_training.equilibrate.answers import JudgedAnswer, answered
from rheostat_training.equilibrate.data import held_out_prompts
from rheostat_training.equilibrate.measure import (
    Answered,
    Differences,
    Likelihood,
    Measures,
    differences,
    measure,
    perplexity,
)
from rheostat_training.equilibrate.methods.make import ROUTER_FOLDER, Made
from rheostat_training.equilibrate.run import FIGURES, JUDGED, LIKELIHOODS, MADE, Measured
from rheostat_training.equilibrate.study.plan import SCALED, SCALING, Cell
from rheostat_training.report.plots import Pen, pens
from rheostat_training.resume import read_value
from rheostat_training.rows import read_rows

COLUMNS: Final = {
    "safe rate": "safe_rate",
    "over-refusal": "over_refusal",
    "of new patterns": "over_refusal_new",
    "benign declined": "benign_refusal",
    "refusal": "refusal",
    "helpfulness": "helpfulness",
    "CoSA": "cosa",
    "well-formed": "well_formed",
}
PICTURED: Final = ("safe rate", "over-refusal", "helpfulness")
APART: Final = {"safe rate − first's": "safe_rate", "over-refusal − first's": "over_refusal"}
READING: Final = (
    "Each figure is over the answers of all seeds to the held-out prompts, which are the same for every cell, with its "
    "95 % bootstrap interval: prompts are drawn again, and with them seeds of training, so few that intervals stay too "
    "narrow where trainings differ much. A rate of 0 or 1 has Clopper and Pearson's interval over prompts. Differences "
    "are from the first row of all, the same prompts drawn for both. A name alone is the model that a blend "
    'serves at full dials; ", router" is MidPO\'s with its gates by token, which no blend has. Safe rate, over-refusal '
    "and CoSA are defined in docs/equilibrate.md."
)
KEPT: Final = "kept of chosen/rejected/whole"
DOTS_PER_INCH: Final = 160


@dataclass(frozen=True, slots=True)
class Row:
    """A cell over all its seeds.

    `prompts` are those drawn, `by_seed` the seeds' own safe rates and over-refusals, and `apart` how far the row's lie
    above those of the first cell, which has none. `kept` are shares that masks kept, empty where there were none: of
    the tokens of chosen and of rejected answers, and of answers that were kept whole.
    """

    group: str
    name: str
    prompts: Mapping[str, int]
    answers: Sequence[Answered]
    found: Measures
    perplexity: Figure | None
    by_seed: Sequence[tuple[Figure | None, Figure | None]]
    apart: Differences | None
    kept: tuple[float, ...] = ()


def rows_of(done: Sequence[Cell], out: Path) -> list[Row]:
    """A row for the base, and one for each cell that is the same but for its seed; for MidPO's router one more."""
    by_name: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in done:
        by_name[cell.group, cell.name].append(cell)
    rows = [replace(_row("", "base", done[:1], [out / "pool" / "base"]), prompts={}, by_seed=())]
    first: Row | None = None
    for (group, name), some in by_name.items():
        measured = [out / "cells" / cell.folder / "measure" for cell in some]
        routers = [folder / ROUTER_FOLDER for folder in measured]
        kept = tuple(map(fmean, zip(*(_kept(cell, out) for cell in some), strict=True)))
        row = replace(_row(group, name, some, measured, first), kept=kept)
        first = first or row
        rows.append(row)
        if all((folder / FIGURES).exists() for folder in routers):
            rows.append(_row(group, f"{name}, router", some, routers, first))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Every group's table as Markdown, the base above each."""
    base, *others = rows
    groups = list(dict.fromkeys(row.group for row in others))
    parts = [READING]
    for group in groups:
        shown = [base, *(row for row in others if row.group == group)]
        parts.append(f"## {group}\n\n{_table(shown)}\n\n{_details(shown)}")
    return "\n\n".join(parts) + "\n"


def plane(rows: Sequence[Row]) -> bytes:
    """Safe rate against over-refusal of every row that is no point of a scaling curve; beside it each by itself; PNG.

    Where rows lie upon each other in the plane, the lines beside it, one a row with its name and its pen, still tell
    them apart. All have their intervals.
    """
    shown = [row for row in rows if row.group != SCALING]
    of = pens([row.name for row in shown])
    picture = Picture(figsize=(11, max(4.6, 0.27 * len(shown))), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(picture)
    whole, *alone = picture.subplots(1, 1 + len(PICTURED), width_ratios=(2.4, *(1 for _ in PICTURED)))
    for place, row in enumerate(shown):
        x, y, pen = row.found.over_refusal, row.found.safe_rate, of[row.name]
        if x and y:
            _dot(whole, (x.value, y.value), pen, _arms(x), _arms(y))
        for axes, name in zip(alone, PICTURED, strict=True):
            if found := getattr(row.found, COLUMNS[name]):
                _dot(axes, (found.value, place), pen, _arms(found))
    whole.set(xlabel="over-refusal: benign look-alikes declined", ylabel="safe rate on harmful prompts")
    for axes, name in zip(alone, PICTURED, strict=True):
        axes.set_title(name, fontsize=9)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        named = [row.name if axes is alone[0] else "" for row in shown]
        axes.set_yticks(range(len(shown)), named, fontsize=8)
    for axes in (whole, *alone):
        axes.set_xlim(-0.06, 1.06)
        axes.grid(alpha=0.25)
    return _png(picture)


def scaling(rows: Sequence[Row]) -> bytes:
    """The safe rate of each group of prompts as the prompts of one group grow, a panel a group; PNG."""
    curves: defaultdict[str, list[tuple[int, Row]]] = defaultdict(list)
    for row in rows:
        if row.group == SCALING and SCALED.fullmatch(row.name):
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


def _row(group: str, name: str, some: Sequence[Cell], folders: Sequence[Path], first: Row | None = None) -> Row:
    """What models of several seeds said, each in its own folder."""
    data, plan = some[0].config.data, some[0].config.measure
    kinds = held_out_prompts(data.held_out, data.held_out_each).of
    answers: list[Answered] = []
    likely: list[Likelihood] = []
    by_seed = []
    for cell, folder in zip(some, folders, strict=True):
        judged = list(read_rows(folder / JUDGED, JudgedAnswer))
        answers += [replace(row, seed=cell.seed) for row in answered(judged, kinds)]
        likely += [replace(row, seed=cell.seed) for row in read_rows(folder / LIKELIHOODS, Likelihood)]
        own = read_value(folder / FIGURES, Measured).measures
        by_seed.append((own.safe_rate, own.over_refusal))
    figures = measure(answers, safe_from=plan.safe_from, resamples=plan.resamples)
    apart = None
    if first:
        apart = differences(answers, first.answers, safe_from=plan.safe_from, resamples=plan.resamples)
    told = perplexity(likely, resamples=plan.resamples)
    return Row(group, name, data.mix, answers, figures, told, by_seed, apart)


def _table(rows: Sequence[Row]) -> str:
    lines = [["", "prompts", *COLUMNS, "perplexity"]]
    for row in rows:
        figures = [str(getattr(row.found, key) or "–") for key in COLUMNS.values()]
        lines.append([row.name, str(sum(row.prompts.values()) or "–"), *figures, str(row.perplexity or "–")])
    return _markdown(lines)


def _details(rows: Sequence[Row]) -> str:
    """Safe rates by the group of the prompts asked, differences, what masks kept, and the seeds by themselves."""
    names = list(rows[0].found.safe_rate_by_group)
    lines = [["", *(f"safe on {name}" for name in names), *APART, KEPT, "seeds: safe rate/over-refusal"]]
    for row in rows:
        by_group = [str(row.found.safe_rate_by_group[name]) for name in names]
        apart = [str(getattr(row.apart, key, None) or "–") for key in APART.values()]
        kept = "/".join(f"{share:.2f}".lstrip("0") for share in row.kept) or "–"
        seeds = ", ".join(f"{_short(safe)}/{_short(over)}" for safe, over in row.by_seed)
        lines.append([row.name, *by_group, *apart, kept, seeds])
    return _markdown(lines)


def _kept(cell: Cell, out: Path) -> tuple[float, ...]:
    """What a cell's masks kept, of its first adapter: shares as in `Row.kept`."""
    made = read_value(out / "cells" / cell.folder / "fit" / MADE, list[Made])
    return tuple(
        float(each.figures[name])
        for each in made[:1]
        for name in (KEPT_CHOSEN, KEPT_REJECTED, KEPT_WHOLE)
        if name in each.figures
    )


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


def _dot(
    axes: Axes, at: tuple[float, float], pen: Pen, across: list[list[float]], along: list[list[float]] | None = None
) -> None:
    """A figure with its intervals."""
    axes.errorbar(
        *at, xerr=across, yerr=along, color=pen.colour, marker=pen.marker, markersize=5, linestyle="none", capsize=2
    )


def _png(picture: Picture) -> bytes:
    made = BytesIO()
    picture.savefig(made, format="png")
    return made.getvalue()
