"""The pictures, one panel a file, so that a phone shows them one below the other and a wide page side by side.

Every function gives a matplotlib figure of its own; pyplot, which keeps figures for a whole process, is not used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from math import hypot
from typing import Final, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from rheostat_server.contract.calibration import DialCalibration
from rheostat_server.contract.dials import DialName, Dials
from rheostat_training.calibrate import Check
from rheostat_training.evaluate import CurvePoint, Figure, PlanePoint
from rheostat_training.report.facts import Losses

Curve = Sequence[CurvePoint]

INCHES: Final = (3.6, 3.5)
DOTS_PER_INCH: Final = 200
PIXELS: Final = tuple(round(side * DOTS_PER_INCH) for side in INCHES)
SMALL: Final = 8
GREY: Final = "#767676"
SMOOTH_SHARE: Final = 0.04
SHORTEST_ARROW: Final = 0.08


Dash = Literal["-", "--", "-.", ":"]


@dataclass(frozen=True, slots=True)
class Pen:
    """How one line is told from the others, also in print and by eyes that see no colours."""

    colour: str
    marker: str
    dash: Dash


# Okabe and Ito's colours without yellow and black, which vanish on a white or on a dark page.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: Final[tuple[Dash, ...]] = ("-", "--", "-.", ":")


def pens(names: Sequence[str]) -> dict[str, Pen]:
    """A pen for each name, the same for the same place in the order."""
    return {
        name: Pen(
            _COLOURS[place % len(_COLOURS)],
            _MARKERS[place % len(_MARKERS)],
            _DASHES[place % len(_DASHES)],
        )
        for place, name in enumerate(names)
    }


def response_panel(title: str, dial: DialName, curves: Mapping[str, Curve], of: Mapping[str, Pen]) -> Picture:
    """Mean level reached at each level asked, a line a mode, its band the 95 % interval, the identity for reference."""
    picture, axes = _panel(title, f"{dial} asked", f"mean {dial} reached")
    _identity(axes)
    for name, curve in curves.items():
        _draw_curve(axes, curve, of[name])
    _legend(picture, {name: of[name] for name in curves})
    return picture


def plane_panel(title: str, points: Sequence[PlanePoint]) -> Picture:
    """Each setting asked (a square) and where it led (a dot with its intervals); the mesh joins neighbours.

    A setting of which no answer could be judged is a square alone.
    """
    picture, axes = _panel(title, "helpfulness", "safety")
    led = [_Led(point.asked, point.safety, point.helpfulness) for point in points if point.safety and point.helpfulness]
    for point in led:
        _draw_arrow(axes, point)
    for line in _mesh(led):
        axes.plot(*line, color=_COLOURS[0], linewidth=0.8, alpha=0.45, zorder=2)
    asked = np.array([(point.asked.helpfulness, point.asked.safety) for point in points])
    axes.scatter(asked[:, 0], asked[:, 1], marker="s", s=26, facecolors="none", edgecolors=GREY, linewidths=1, zorder=3)
    axes.errorbar(
        [point.helpfulness.value for point in led],
        [point.safety.value for point in led],
        xerr=_reach([point.helpfulness for point in led]),
        yerr=_reach([point.safety for point in led]),
        fmt="o",
        color=_COLOURS[0],
        markersize=4,
        elinewidth=1,
        zorder=4,
    )
    asked_key = Line2D([], [], marker="s", linestyle="", markerfacecolor="none", markeredgecolor=GREY)
    reached_key = Line2D([], [], marker="o", linestyle="", color=_COLOURS[0])
    picture.legend(
        [asked_key, reached_key],
        ["asked", "mean reached"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=SMALL,
    )
    return picture


def calibration_panel(title: str, dial: DialName, before: DialCalibration, after: Sequence[Check]) -> Picture:
    """Mean score at each value before calibration (with band) and at each dial after it, and the attainable range."""
    picture, axes = _panel(title, f"{dial} set", f"mean {dial} measured")
    low, high = before.attainable
    axes.axhspan(low, high, color=GREY, alpha=0.10, linewidth=0, zorder=0)
    _identity(axes)
    of = {"before": Pen(GREY, "x", "-")}
    curve = [CurvePoint(point.control, Figure(point.score, point.low, point.high)) for point in before.points]
    _draw_curve(axes, curve, of["before"])
    if after:
        of["after"] = Pen(_COLOURS[0], "o", "-")
        asked, reached = [check.asked for check in after], [check.reached for check in after]
        axes.plot(asked, reached, color=_COLOURS[0], marker="o", markersize=4.5, linewidth=1.5)
    _legend(picture, of)
    return picture


def loss_panel(title: str, losses: Losses) -> Picture:
    """The loss of each step, and its running mean."""
    picture, axes = _panel(title, "step", "loss", unit=False)
    steps, values = np.array([step for step, _ in losses]), np.array([loss for _, loss in losses])
    axes.plot(steps, values, color=_COLOURS[0], alpha=0.3, linewidth=0.6)
    width = max(1, round(len(values) * SMOOTH_SHARE))
    smooth = np.convolve(values, np.full(width, 1 / width), mode="valid")
    axes.plot(steps[width - 1 :], smooth, color=_COLOURS[0], linewidth=1.6)
    keys = [Line2D([], [], color=_COLOURS[0], alpha=0.3), Line2D([], [], color=_COLOURS[0], linewidth=1.6)]
    words = ["each step", f"mean of the last {width}"]
    picture.legend(keys, words, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL)
    return picture


def png(picture: Picture) -> bytes:
    """The same bytes for the same figure: no date, and not the version of what drew it."""
    file = BytesIO()
    picture.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()


def _panel(title: str, x: str, y: str, *, unit: bool = True) -> tuple[Picture, Axes]:
    picture = Picture(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    axes.set_title(title, fontsize=SMALL + 1)
    axes.set_xlabel(x, fontsize=SMALL + 1)
    axes.set_ylabel(y, fontsize=SMALL + 1)
    axes.tick_params(labelsize=SMALL)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if unit:
        axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
        axes.set_xticks(np.linspace(0, 1, 5))
        axes.set_yticks(np.linspace(0, 1, 5))
    return picture, axes


def _identity(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 2)), zorder=1)


def _draw_curve(axes: Axes, curve: Curve, pen: Pen) -> None:
    asked = [point.asked for point in curve]
    low, high = [point.reached.low for point in curve], [point.reached.high for point in curve]
    axes.fill_between(asked, low, high, color=pen.colour, alpha=0.2, linewidth=0)
    reached = [point.reached.value for point in curve]
    axes.plot(asked, reached, color=pen.colour, marker=pen.marker, linestyle=pen.dash, markersize=4.5, linewidth=1.5)


class _Led(NamedTuple):
    """Where a setting led."""

    asked: Dials
    safety: Figure
    helpfulness: Figure


def _draw_arrow(axes: Axes, point: _Led) -> None:
    """None where the head would hide how near the two are."""
    away = hypot(point.helpfulness.value - point.asked.helpfulness, point.safety.value - point.asked.safety)
    if away < SHORTEST_ARROW:
        return
    axes.annotate(
        "",
        xy=(point.helpfulness.value, point.safety.value),
        xytext=(point.asked.helpfulness, point.asked.safety),
        arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 0.7, "shrinkA": 3, "shrinkB": 2},
        zorder=1,
    )


def _mesh(points: Sequence[_Led]) -> list[tuple[list[float], list[float]]]:
    """Lines through the means reached under one level of safety, and under one of helpfulness."""
    rows = sorted(points, key=lambda point: (point.asked.safety, point.asked.helpfulness))
    columns = sorted(points, key=lambda point: (point.asked.helpfulness, point.asked.safety))
    lines = [list(line) for _, line in groupby(rows, key=lambda point: point.asked.safety)]
    lines += [list(line) for _, line in groupby(columns, key=lambda point: point.asked.helpfulness)]
    return [([point.helpfulness.value for point in line], [point.safety.value for point in line]) for line in lines]


def _reach(figures: Sequence[Figure]) -> list[list[float]]:
    """How far the intervals go below and above the values."""
    below = [max(0.0, found.value - found.low) for found in figures]
    return [below, [max(0.0, found.high - found.value) for found in figures]]


def _legend(picture: Picture, of: Mapping[str, Pen]) -> None:
    keys = [
        Line2D([], [], color=pen.colour, marker=pen.marker, linestyle=pen.dash, markersize=4.5, linewidth=1.5)
        for pen in of.values()
    ]
    keys.append(Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (1, 2))))
    picture.legend(
        keys, [*of, "exact"], loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL, handlelength=2.4
    )
