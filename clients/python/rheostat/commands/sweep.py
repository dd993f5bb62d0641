"""`rheostat sweep`: one text at a grid of dials, as a table, a picture or JSON."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from rheostat.answers import Point
from rheostat.client import Client
from rheostat.commands.levels import asked, clamped_to, judged, was_clamped
from rheostat.commands.options import (
    FAILED,
    Adapter,
    AsJson,
    Candidates,
    Key,
    MaxTokens,
    Model,
    ModeName,
    Seed,
    Temperature,
    Url,
    connected,
    given,
    levels,
    tell,
    text_of,
)
from rheostat.commands.terminal import level_in_words, plain
from rheostat.dials import DIALS
from rheostat.errors import APIError

Draw = Callable[[Sequence[Point], Path], None]
FIVE: Final = 5
"""Levels of either dial, where none is named."""


def sweep(
    text: Annotated[
        str, typer.Argument(help="What to say; - reads it from standard input. After -- it may begin with -.")
    ],
    safety: Annotated[
        str | None, typer.Option(help="Levels, such as 0,0.5,1. With none of either dial, five of both.")
    ] = None,
    helpfulness: Annotated[str | None, typer.Option(help="Levels; left out, the dial stays at its default.")] = None,
    png: Annotated[
        Path | None, typer.Option(help="Draw the scores into this file.", dir_okay=False, writable=True)
    ] = None,
    mode: ModeName = None,
    adapter: Adapter = None,
    candidates: Candidates = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Answers TEXT at a grid of dials and shows what the server's scorers say of each answer."""
    with connected("sweep", url, key, as_json=as_json) as client:
        draw = _drawing(png) if png is not None else None
        options = given(
            mode=mode, adapter=adapter, candidates=candidates, model=model, max_tokens=max_tokens,
            temperature=temperature, seed=seed, safety=levels(safety, "safety"),
            helpfulness=levels(helpfulness, "helpfulness"),
        )  # fmt: skip
        if as_json:
            swept = client.sweep(text_of(text), **options)
            typer.echo(json.dumps(swept.raw, ensure_ascii=False))
            points = swept.points
        else:
            points = _shown(client, text_of(text), options)
        if draw and png:
            _draw(draw, points, png)
    if failed := [point for point in points if point.error]:
        tell("sweep", f"{len(failed)} of {len(points)} points failed")
        raise typer.Exit(FAILED)


def _shown(client: Client, text: str, options: dict[str, Any]) -> Sequence[Point]:
    """The points, with a bar on standard error while they come where that is a terminal.

    Where they do not all come, those that did are shown before what went wrong.
    """
    points: list[Point] = []
    bar = Progress()
    task = bar.add_task("points", total=_count(options))
    watched = Console(stderr=True, quiet=not sys.stderr.isatty())
    try:
        with client.sweep_stream(text, **options) as stream, Live(bar, console=watched, transient=True) as live:
            for point in stream:
                points = sorted([*points, point], key=lambda each: each.index)
                bar.advance(task)
                live.update(Group(_table(points), bar))
    finally:
        _show(points)
    return points


def _show(points: Sequence[Point]) -> None:
    if points:
        Console().print(_table(points))
    if clamped := sum(was_clamped(point) for point in points):
        tell("sweep", f"{clamped} of {len(points)} points were clamped to what may be set: asked → in force")


def _count(options: Mapping[str, Any]) -> int:
    named = [len(options[name]) for name in DIALS if name in options]
    return prod(named) if named else FIVE * FIVE


def _table(points: Sequence[Point]) -> Table:
    """A column for each dial that is swept, each that is judged, and the answer or the error in its place."""
    swept = [name for name in DIALS if all(asked(point, name) is not None for point in points)]
    table = Table(*swept, *(f"judged {name}" for name in DIALS), "answer")
    for point in points:
        said = _failure(point.error) if point.error else _beginning(point)
        scores = (level_in_words(judged(point, name)) for name in DIALS)
        table.add_row(*(_setting(point, name) for name in swept), *scores, said)
    return table


def _setting(point: Point, dial: str) -> str:
    taken = clamped_to(point, dial)
    return level_in_words(asked(point, dial)) + ("" if taken is None else f" → {level_in_words(taken)}")


def _failure(error: APIError) -> Text:
    return Text(plain(f"{error.code or type(error).__name__}: {error.message}"), "red")


def _beginning(point: Point) -> Text:
    return Text(plain(" ".join((point.content or "").split())), no_wrap=True, overflow="ellipsis")


def _drawing(path: Path) -> Draw:
    """Raises ValueError where nothing could be drawn, before a sweep is run for it."""
    folder = path.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ValueError(f"--png is {path}; {folder} is no folder that may be written to")
    try:
        from rheostat.commands.picture import draw
    except ModuleNotFoundError as exc:
        told = f"--png needs the module {exc.name}, which is not installed; run: pip install 'rheostat[plot]'"
        raise ValueError(told) from exc
    return draw


def _draw(draw: Draw, points: Sequence[Point], path: Path) -> None:
    if not any(point.scores for point in points):
        tell("sweep", f"no answer was judged, so there is nothing to draw into {path}")
        raise typer.Exit(FAILED)
    try:
        draw(points, path)
    except OSError as exc:
        tell("sweep", f"{path} cannot be written: {exc.strerror}")
        raise typer.Exit(FAILED) from exc
    tell("sweep", f"drawn into {path}")
