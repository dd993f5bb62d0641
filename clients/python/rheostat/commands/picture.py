"""Draws what scorers say of a sweep: a heat map of each dial over the grid, or a line over the one that was swept."""

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rheostat.answers import Point
from rheostat.commands.levels import asked, judged, was_clamped
from rheostat.dials import DIALS

NOT_JUDGED: Final = nan
LIGHT_FROM: Final = 0.6
"""The level from which the map's colours are light."""
CLAMPED: Final = "*"
NOTE: Final = f"{CLAMPED} clamped: the dials in force were others than those asked"
WIDE_IN: Final = 9.0
HIGH_IN: Final = 4.2


def draw(points: Sequence[Point], path: Path) -> None:
    """Raises OSError where no file can be written."""
    picture(points).savefig(path, format="png", dpi=150)


def picture(points: Sequence[Point]) -> Figure:
    """Points that were clamped are marked, as their answers are not those of the levels at the axes."""
    figure = Figure(figsize=(WIDE_IN, HIGH_IN), layout="constrained")
    swept = [name for name in DIALS if all(asked(point, name) is not None for point in points)]
    for place, name in enumerate(DIALS):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.set_title(f"judged {name}")
        if len(swept) == len(DIALS):
            _heat_map(axes, points, name)
        else:
            _line(axes, points, swept[0], name)
    if any(was_clamped(point) for point in points):
        figure.supxlabel(NOTE, fontsize="small")
    return figure


def _level(point: Point | None, name: str) -> float:
    """Not a number where the dial was not judged."""
    level = judged(point, name) if point else None
    return NOT_JUDGED if level is None else level


def _mark(point: Point | None) -> str:
    return CLAMPED if point and was_clamped(point) else ""


def _heat_map(axes: Axes, points: Sequence[Point], name: str) -> None:
    across = sorted({point.helpfulness for point in points if point.helpfulness is not None})
    up = sorted({point.safety for point in points if point.safety is not None})
    at = {(point.safety, point.helpfulness): point for point in points}
    rows = [[at.get((safety, helpfulness)) for helpfulness in across] for safety in up]
    grid = [[_level(point, name) for point in row] for row in rows]
    image = axes.imshow(grid, origin="lower", vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(across)), [f"{each:g}" for each in across])
    axes.set_yticks(range(len(up)), [f"{each:g}" for each in up])
    axes.set_xlabel("helpfulness asked")
    axes.set_ylabel("safety asked")
    axes.figure.colorbar(image, ax=axes)
    for row, told in enumerate(grid):
        for column, each in enumerate(told):
            colour = "black" if each > LIGHT_FROM else "white"
            words = ("–" if isnan(each) else f"{each:.2f}") + _mark(rows[row][column])
            axes.text(column, row, words, ha="center", va="center", color=colour)


def _line(axes: Axes, points: Sequence[Point], swept: str, name: str) -> None:
    pairs = sorted((asked(point, swept) or 0.0, _level(point, name)) for point in points)
    axes.plot([pair[0] for pair in pairs], [pair[1] for pair in pairs], marker="o")
    for point in points:
        if (level := judged(point, name)) is not None and was_clamped(point):
            axes.text(asked(point, swept) or 0.0, level, f" {CLAMPED}")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel=f"{swept} asked", ylabel="level")
