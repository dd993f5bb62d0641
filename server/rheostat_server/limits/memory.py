"""Windows and leases of one process, by a clock that nobody sets back.

The `limits` library's own storage in memory goes by `time.time()`: set back by an hour, it refuses for an hour; and
each hit has it look through every caller there is. This one forgets a caller as the next one is counted.
"""

import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rheostat_server.limits.quota import MINUTE, LimitName, Used
from rheostat_server.limits.windows import Taken


@dataclass(slots=True)
class _Window:
    """Amounts with the time of each, oldest first, and their sum."""

    entries: deque[tuple[float, int]] = field(default_factory=deque)
    amount: int = 0

    def add(self, now: float, amount: int) -> None:
        self.entries.append((now, amount))
        self.amount += amount

    def remove(self, at: float, amount: int) -> None:
        """One of that time and amount, if it is there still; the newest are looked at first."""
        for place, entry in enumerate(reversed(self.entries), start=1):
            if entry == (at, amount):
                del self.entries[-place]
                self.amount -= amount
                return
            if entry[0] < at:
                return

    def drop_until(self, start: float) -> None:
        while self.entries and self.entries[0][0] <= start:
            self.amount -= self.entries.popleft()[1]

    def used(self, now: float, limit: int) -> Used:
        """What it holds, and when that falls below itself and the limit."""
        left, wanted = self.amount, min(self.amount, limit)
        for at, amount in self.entries:
            left -= amount
            if left < wanted:
                return Used(self.amount, at + MINUTE - now)
        return Used()


class MemoryWindows:
    """Exact: no minute, wherever it begins, holds more than the limit. An entry a request, for a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[tuple[LimitName, str], _Window] = OrderedDict()
        """The one added to last comes last."""

    def __len__(self) -> int:
        return len(self._windows)

    async def used(self, name: LimitName, caller: str, limit: int) -> Used:
        return self._used(name, caller, limit)

    async def take(self, name: LimitName, caller: str, limit: int, amount: int) -> Taken | None:
        if self._used(name, caller, limit).amount + amount > limit:
            return None
        now = self._add(name, caller, amount)
        return Taken(name, caller, limit, amount, now)

    async def give_back(self, taken: Taken) -> None:
        if (window := self._windows.get((taken.name, taken.caller))) is not None:
            window.remove(taken.at, taken.amount)

    async def add_tokens(self, caller: str, amount: int) -> None:
        self._add("tokens", caller, amount)

    def _used(self, name: LimitName, caller: str, limit: int) -> Used:
        now = self._clock()
        window = self._windows.get((name, caller))
        if window is None:
            return Used()
        window.drop_until(now - MINUTE)
        return window.used(now, limit)

    def _add(self, name: LimitName, caller: str, amount: int) -> float:
        """The time by which it is counted."""
        now = self._clock()
        self._windows.setdefault((name, caller), _Window()).add(now, amount)
        self._windows.move_to_end((name, caller))
        self._forget_until(now - MINUTE)
        return now

    def _forget_until(self, start: float) -> None:
        """Forgets windows whose last entry is too old; they come first."""
        while True:
            key, window = next(iter(self._windows.items()))
            window.drop_until(start)
            if window.entries:
                return
            del self._windows[key]


class MemoryLeases:
    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    @asynccontextmanager
    async def held(self, caller: str, limit: int) -> AsyncGenerator[bool]:
        if self._open[caller] >= limit:
            yield False
            return
        self._open[caller] += 1
        try:
            yield True
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
