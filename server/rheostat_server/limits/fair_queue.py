"""At most so many requests at once; the others wait, and the caller that used the least lately goes first."""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol

from rheostat_server.limits.refusals import QueueFull, QueueTimeout
from rheostat_server.limits.telemetry import QUEUE_REFUSED, RUNNING, WAITED, WAITING

FORGOTTEN_SECONDS: Final = 1e-3
"""A caller that has nothing here is forgotten once no more than this is left of what it used."""


class Queue(Protocol):
    """Whose turn it is."""

    def turn(self, caller: str) -> AbstractAsyncContextManager[float]:
        """Waits for a turn of `caller`, and holds it until it is left; the seconds waited."""
        ...


class NoQueue:
    """Everyone's turn is now."""

    def turn(self, caller: str) -> AbstractAsyncContextManager[float]:
        now: AbstractAsyncContextManager[float] = nullcontext(0.0)
        return now


@dataclass(slots=True, eq=False)
class _Turn:
    """A request that waits: `granted` is set when its turn comes, or fails when it is pushed out.

    One that is cancelled waits here until its task has noticed.
    """

    caller: str
    since: float
    granted: "asyncio.Future[None]"
    waits: bool = True


@dataclass(slots=True)
class _Line:
    """What a caller has here, and the seconds of running time that it used up to `at`, decayed.

    With n requests running and a half-life h, the use u obeys du/dt = n - u ln(2)/h, so over a time t in which n does
    not change u becomes u d + n (1 - d) h/ln(2), where d = 2^(-t/h).
    """

    at: float
    waiting: deque[_Turn] = field(default_factory=deque)
    running: int = 0
    used: float = 0.0

    def used_by(self, now: float, half_life: float) -> float:
        left = math.exp2(-max(0.0, now - self.at) / half_life)
        return self.used * left + self.running * (1 - left) * half_life / math.log(2)

    def run(self, change: int, now: float, half_life: float) -> None:
        self.used = self.used_by(now, half_life)
        self.at = now
        self.running += change


class FairQueue:
    """At most `running` requests at once and `waiting` that wait, each for at most `deadline` seconds.

    A slot goes to the waiting caller that used the fewest seconds of running time lately, those of its running requests
    among them; what it used counts half after `half_life` seconds. So whoever stays below an even share goes first, and
    waits no longer than until some running request ends. Within a caller the first to come is the first served.

    Of the slots `reserved` are kept for callers that have nothing waiting and used less than an even share: they do not
    wait even that long. A memory of a minute lets a caller that stays below its share on the whole send a few requests
    at once now and then.

    When too many wait, the newest request of the caller that has the most waiting is refused, so nobody can fill the
    queue for others. It belongs to one event loop.
    """

    def __init__(
        self,
        *,
        running: int,
        waiting: int,
        deadline: float,
        half_life: float = 60.0,
        reserved: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        least = {
            "running": (running, 1),
            "waiting": (waiting, 0),
            "deadline": (deadline, 0),
            "half_life": (half_life, 1e-6),
            "reserved": (reserved, 0),
        }
        for name, (value, lowest) in least.items():
            if not value >= lowest:
                raise ValueError(f"{name} is {value}; it must be at least {lowest}")
        if reserved >= running:
            raise ValueError(f"reserved is {reserved}; it must be below running, {running}")
        self._most_running = running
        self._for_all = running - reserved
        self._most_waiting = waiting
        self._deadline = deadline
        self._half_life = half_life
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        """Callers that have nothing here; the one that has been so for longest comes first."""
        self.running = 0
        self.waiting = 0
        self._light = 0
        """Of those that run, the ones that were let in as light callers'; they take no slot from the others."""

    @property
    def callers(self) -> int:
        """Those that it keeps books of."""
        self._forget()
        return len(self._lines)

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncGenerator[float]:
        """A turn of `caller`; yields the seconds waited.

        Raises:
            QueueFull: too many wait, this caller's most of all.
            QueueTimeout: the turn did not come in time.
        """
        since = self._clock()
        light = not self._has_room and self._is_light(caller)
        if light:
            self._start(caller, light=True)
        else:
            await self._wait(caller, since)
        try:
            waited = self._clock() - since
            WAITED.observe(waited)
            yield waited
        finally:
            self._end(caller, light=light)

    async def _wait(self, caller: str, since: float) -> None:
        """Until the caller has a slot."""
        if self._has_room:
            self._start(caller)
            return
        self._make_room(caller)
        turn = _Turn(caller, since, asyncio.get_running_loop().create_future())
        self._join(turn)
        try:
            async with asyncio.timeout(self._deadline):
                await turn.granted
        except TimeoutError:
            self._leave(turn)
            QUEUE_REFUSED.labels("timeout").inc()
            raise QueueTimeout(deadline=self._deadline) from None
        except asyncio.CancelledError:
            self._leave(turn)
            raise

    @property
    def _has_room(self) -> bool:
        """Whether there is a slot that is not reserved."""
        return self.running - self._light < self._for_all

    def _start(self, caller: str, *, light: bool = False) -> None:
        self._line(caller).run(1, self._clock(), self._half_life)
        self.running += 1
        self._light += light
        RUNNING.inc()

    def _end(self, caller: str, *, light: bool = False) -> None:
        line = self._lines[caller]
        line.run(-1, self._clock(), self._half_life)
        self.running -= 1
        self._light -= light
        RUNNING.dec()
        self._rest(caller, line)
        self._serve()

    def _serve(self) -> None:
        """Gives free slots to those that wait."""
        while self.waiting and self._has_room:
            turn = self._next()
            self._remove(turn)
            if not turn.granted.done():
                self._start(turn.caller)
                turn.granted.set_result(None)

    def _next(self) -> _Turn:
        now = self._clock()
        line = min(
            (line for line in self._lines.values() if line.waiting),
            key=lambda line: (line.used_by(now, self._half_life), line.running, line.waiting[0].since),
        )
        return line.waiting[0]

    def _is_light(self, caller: str) -> bool:
        """Whether a reserved slot is free, and it has nothing waiting and used less than callers do on average."""
        if self._light >= self._most_running - self._for_all:
            return False
        self._forget()
        line, now = self._lines.get(caller), self._clock()
        if line is None or not self._lines:
            return True
        share = sum(each.used_by(now, self._half_life) for each in self._lines.values()) / len(self._lines)
        return not line.waiting and line.used_by(now, self._half_life) < share

    def _make_room(self, caller: str) -> None:
        """Refuses one of them if all places are taken: the newcomer, or the newest of whoever has more waiting."""
        if self.waiting < self._most_waiting:
            return
        own = len(self._lines[caller].waiting) if caller in self._lines else 0
        most = max(self._lines.values(), key=lambda line: len(line.waiting))
        QUEUE_REFUSED.labels("full").inc()
        if len(most.waiting) <= own + 1:
            raise QueueFull(waiting=self.waiting, own=own)
        newest = most.waiting[-1]
        if not newest.granted.done():
            newest.granted.set_exception(QueueFull(waiting=self.waiting, own=len(most.waiting)))
        self._remove(newest)

    def _join(self, turn: _Turn) -> None:
        self._line(turn.caller).waiting.append(turn)
        self.waiting += 1
        WAITING.inc()

    def _remove(self, turn: _Turn) -> None:
        """It waits no more: it has its turn, or has gone."""
        line = self._lines[turn.caller]
        line.waiting.remove(turn)
        turn.waits = False
        self.waiting -= 1
        WAITING.dec()
        self._rest(turn.caller, line)

    def _leave(self, turn: _Turn) -> None:
        """Gone before it ran: its place is free, or its slot if that had just been given to it."""
        if turn.waits:
            self._remove(turn)
        elif not turn.granted.cancelled() and turn.granted.exception() is None:
            self._end(turn.caller)

    def _line(self, caller: str) -> _Line:
        self._forget()
        self._idle.pop(caller, None)
        return self._lines.setdefault(caller, _Line(self._clock()))

    def _rest(self, caller: str, line: _Line) -> None:
        if not line.running and not line.waiting:
            self._idle[caller] = None

    def _forget(self) -> None:
        now = self._clock()
        while self._idle:
            caller = next(iter(self._idle))
            if self._lines[caller].used_by(now, self._half_life) > FORGOTTEN_SECONDS:
                return
            del self._idle[caller], self._lines[caller]
