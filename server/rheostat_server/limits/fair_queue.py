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
LIGHT: Final = 0.8
"""A caller is light that used less than this of an even share. Those that flood keep close to 1, from both sides."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The seconds that a request waited, and whether it may go before those that run: there was no room for it, and its
    caller is light.
    """

    waited: float = 0.0
    urgent: bool = False


class Queue(Protocol):
    """Whose turn it is."""

    def turn(self, caller: str) -> AbstractAsyncContextManager[Turn]:
        """Waits for a turn of `caller`, and holds it until it is left."""
        ...


class NoQueue:
    """Everyone's turn is now."""

    def turn(self, caller: str) -> AbstractAsyncContextManager[Turn]:
        return nullcontext(Turn())


@dataclass(slots=True, eq=False)
class _Place:
    """A request that waits: `granted` is set when its turn comes, or fails when it is pushed out.

    One that is cancelled waits here until its task has noticed.
    """

    caller: str
    since: float
    urgent: bool
    granted: "asyncio.Future[None]"
    waits: bool = True


@dataclass(slots=True)
class _Line:
    """What a caller has here, and the seconds of running time that it used up to `at`, decayed.

    With n slots in use and a half-life h, the use u obeys du/dt = n - u ln(2)/h, so over a time t in which n does
    not change u becomes u d + n (1 - d) h/ln(2), where d = 2^(-t/h).
    """

    at: float
    waiting: deque[_Place] = field(default_factory=deque)
    in_use: int = 0
    used: float = 0.0

    def used_by(self, now: float, half_life: float) -> float:
        left = math.exp2(-max(0.0, now - self.at) / half_life)
        return self.used * left + self.in_use * (1 - left) * half_life / math.log(2)

    def use(self, slots: int, now: float, half_life: float) -> None:
        """So many more from now on, or fewer."""
        self.used = self.used_by(now, half_life)
        self.at = now
        self.in_use += slots


class FairQueue:
    """At most `running` requests at once and `waiting` that wait, each for at most `deadline` seconds.

    A slot goes to the waiting caller that used the fewest seconds of running time lately, those of its running requests
    among them; what it used counts half after `half_life` seconds. So whoever stays below an even share goes first, and
    waits no longer than until some running request ends. Within a caller the first to come is the first served.

    Of the slots `reserved` are kept for light callers, which have nothing waiting and used less than `LIGHT` of an even
    share: they do not wait even that long. A memory of minutes lets a caller that stays below its share on the whole
    send a few requests at once now and then.

    A light caller's request that finds no room is urgent. With `urgent_first` the others stand still while it runs, so
    it uses all of their slots. Were it counted as one, requests that are fast since they are urgent would make their
    callers light, and in a flood every second one would be so.

    When too many wait, the newest request of the caller that has the most waiting is refused, so nobody can fill the
    queue for others. It belongs to one event loop.
    """

    def __init__(
        self,
        *,
        running: int,
        waiting: int,
        deadline: float,
        half_life: float = 120.0,
        reserved: int = 0,
        urgent_first: bool = False,
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
        self._reserved = reserved
        self._urgent_use = running - reserved if urgent_first else 1
        self._most_waiting = waiting
        self._deadline = deadline
        self._half_life = half_life
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        """Callers that have nothing here; the one that has been so for longest comes first."""
        self._all = _Line(clock())
        """The callers' together."""
        self._reserved_running = 0
        """Of those that run, the ones in reserved slots; they take none from the others."""
        self.running = 0
        self.waiting = 0

    @property
    def callers(self) -> int:
        """Those that it keeps books of."""
        self._forget()
        return len(self._lines)

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncGenerator[Turn]:
        """A turn of `caller`.

        Raises:
            QueueFull: too many wait, this caller's most of all.
            QueueTimeout: the turn did not come in time.
        """
        since = self._clock()
        urgent = not self._has_room and self._is_light(caller)
        reserved = urgent and self._reserved_running < self._reserved
        if reserved:
            self._start(caller, urgent=True, reserved=True)
        else:
            await self._wait(_Place(caller, since, urgent, asyncio.get_running_loop().create_future()))
        try:
            waited = self._clock() - since
            WAITED.observe(waited)
            yield Turn(waited, urgent)
        finally:
            self._end(caller, urgent=urgent, reserved=reserved)

    async def _wait(self, place: _Place) -> None:
        """Until its caller has a slot."""
        if self._has_room:
            self._start(place.caller, urgent=False)
            return
        self._make_room(place.caller)
        self._join(place)
        try:
            async with asyncio.timeout(self._deadline):
                await place.granted
        except TimeoutError:
            self._leave(place)
            QUEUE_REFUSED.labels("timeout").inc()
            raise QueueTimeout(deadline=self._deadline) from None
        except asyncio.CancelledError:
            self._leave(place)
            raise

    @property
    def _has_room(self) -> bool:
        """Whether there is a slot that is not reserved."""
        return self.running - self._reserved_running < self._most_running - self._reserved

    def _start(self, caller: str, *, urgent: bool, reserved: bool = False) -> None:
        self._use(self._line(caller), self._urgent_use if urgent else 1)
        self.running += 1
        self._reserved_running += reserved
        RUNNING.inc()

    def _end(self, caller: str, *, urgent: bool, reserved: bool = False) -> None:
        line = self._lines[caller]
        self._use(line, -self._urgent_use if urgent else -1)
        self.running -= 1
        self._reserved_running -= reserved
        RUNNING.dec()
        self._rest(caller, line)
        self._serve()

    def _serve(self) -> None:
        """Gives free slots to those that wait."""
        while self.waiting and self._has_room:
            place = self._next()
            self._remove(place)
            if not place.granted.done():
                self._start(place.caller, urgent=place.urgent)
                place.granted.set_result(None)

    def _next(self) -> _Place:
        now = self._clock()
        line = min(
            (line for line in self._lines.values() if line.waiting),
            key=lambda line: (line.used_by(now, self._half_life), line.in_use, line.waiting[0].since),
        )
        return line.waiting[0]

    def _use(self, line: _Line, slots: int) -> None:
        now = self._clock()
        line.use(slots, now, self._half_life)
        self._all.use(slots, now, self._half_life)

    def _is_light(self, caller: str) -> bool:
        """Whether it has nothing waiting and used clearly less than callers do on average."""
        self._forget()
        if (line := self._lines.get(caller)) is None:
            return True
        now = self._clock()
        share = self._all.used_by(now, self._half_life) / len(self._lines)
        return not line.waiting and line.used_by(now, self._half_life) < LIGHT * share

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

    def _join(self, place: _Place) -> None:
        self._line(place.caller).waiting.append(place)
        self.waiting += 1
        WAITING.inc()

    def _remove(self, place: _Place) -> None:
        """It waits no more: it has its turn, or has gone."""
        line = self._lines[place.caller]
        line.waiting.remove(place)
        place.waits = False
        self.waiting -= 1
        WAITING.dec()
        self._rest(place.caller, line)

    def _leave(self, place: _Place) -> None:
        """Gone before it ran: its place is free, or its slot if that had just been given to it."""
        if place.waits:
            self._remove(place)
        elif not place.granted.cancelled() and place.granted.exception() is None:
            self._end(place.caller, urgent=place.urgent)

    def _line(self, caller: str) -> _Line:
        self._forget()
        self._idle.pop(caller, None)
        return self._lines.setdefault(caller, _Line(self._clock()))

    def _rest(self, caller: str, line: _Line) -> None:
        if not line.in_use and not line.waiting:
            self._idle[caller] = None

    def _forget(self) -> None:
        now = self._clock()
        while self._idle:
            caller = next(iter(self._idle))
            if self._lines[caller].used_by(now, self._half_life) > FORGOTTEN_SECONDS:
                return
            del self._idle[caller], self._lines[caller]
        if not self._lines:
            self._all = _Line(now)
