"""Progress of long stages: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBar

LINE_EVERY_SECONDS = 15.0
CONSOLE: Final = Console(stderr=True)
"""Of all bars: one within another stands below it."""


class Task(Protocol):
    """A piece of work that moves on."""

    def advance(self, amount: int = 1, *, note: str = "") -> None: ...

    def skip(self, amount: int) -> None:
        """Counts what an earlier run has done; it has no part in the rate."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Opens tasks; `auto` picks the form that suits where the output goes."""

    open_task: Callable[[str, int, str], AbstractContextManager[Task]]

    @classmethod
    def auto(cls) -> "Progress":
        return cls(_bar) if sys.stderr.isatty() else cls(_lines)

    @classmethod
    def silent(cls) -> "Progress":
        return cls(_nothing)

    def task(self, name: str, total: int, *, unit: str = "rows") -> AbstractContextManager[Task]:
        return self.open_task(name, total, unit)


@dataclass(frozen=True, slots=True)
class _Silent:
    def advance(self, amount: int = 1, *, note: str = "") -> None:
        return None

    def skip(self, amount: int) -> None:
        return None


@dataclass(slots=True)
class _Lines:
    name: str
    total: int
    unit: str
    started: float
    said: float
    done: int = 0
    skipped: int = 0

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.said >= LINE_EVERY_SECONDS or self.done >= self.total:
            self.said = now
            print(self.line(now - self.started, note), file=sys.stderr, flush=True)

    def skip(self, amount: int) -> None:
        self.done += amount
        self.skipped += amount

    def line(self, elapsed: float, note: str) -> str:
        rate = (self.done - self.skipped) / max(elapsed, 1e-9)
        left = max(0, self.total - self.done) / max(rate, 1e-9)
        done = f"{self.name}: {self.done}/{self.total} {self.unit}"
        text = f"{done}, {rate:.1f}/s, {elapsed:.0f} s gone, {left:.0f} s left"
        return f"{text}, {note}" if note else text


@dataclass(slots=True)
class _Bar:
    """The bar's own estimate of the time left counts what was skipped: it is shown beside the rate instead."""

    bar: RichBar
    id: TaskID
    total: int
    unit: str
    started: float
    done: int = 0
    skipped: int = 0

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        self.done += amount
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        left = (self.total - self.skipped - self.done) / max(rate, 1e-9)
        told = f"{rate:.1f} {self.unit}/s, {max(0.0, left):.0f} s left {note}"
        self.bar.update(self.id, advance=amount, note=told)

    def skip(self, amount: int) -> None:
        self.skipped += amount
        self.bar.update(self.id, advance=amount)


@contextmanager
def _nothing(name: str, total: int, unit: str) -> Iterator[Task]:
    yield _Silent()


@contextmanager
def _lines(name: str, total: int, unit: str) -> Iterator[Task]:
    now = time.monotonic()
    yield _Lines(name, total, unit, started=now, said=now)


@contextmanager
def _bar(name: str, total: int, unit: str) -> Iterator[Task]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with RichBar(*columns, console=CONSOLE) as bar:
        yield _Bar(bar, bar.add_task(name, total=total, note=""), total, unit, time.monotonic())
