"""A line before somebody who is asked for judgements: some asks at once, the others wait, each call has a deadline."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, TypeVar

from rheostat_server.errors import ScorerUnavailable
from rheostat_server.scorers import ScorerCard, Scores
from rheostat_server.scorers.batching import Limits
from rheostat_server.scorers.telemetry import FAILURES, QUEUED, SECONDS, count_judged

T = TypeVar("T")
Ask = Callable[[], Coroutine[Any, Any, T]]


class Line:
    """Runs the asks of many calls, `at_once` of them together; it belongs to the event loop of its first call."""

    def __init__(self, card: ScorerCard, limits: Limits, *, at_once: int) -> None:
        self._card = card
        self._limits = limits
        self._at_once = at_once
        self._places = asyncio.Semaphore(at_once)
        self._pending = 0
        self._closed = False

    async def all_of(self, asks: Sequence[Ask[T]]) -> list[T]:
        """What each ask returns, in their order. A call that fails or is cancelled takes all its asks out.

        Raises:
            ScorerUnavailable: there is no room, it took longer than the deadline, or an ask raised it.
        """
        self._check_room(len(asks))
        try:
            async with asyncio.timeout(self._limits.deadline):
                return await self._together(asks)
        except TimeoutError:
            FAILURES.labels(self._card.name, "deadline").inc()
            raise ScorerUnavailable(
                f"scorer {self._card.name!r} did not judge within its deadline of {self._limits.deadline:g} s"
            ) from None
        except ScorerUnavailable:
            FAILURES.labels(self._card.name, "error").inc()
            raise

    def count(self, scores: Sequence[Scores]) -> None:
        """Tells the metrics of a call's scores."""
        count_judged(self._card, scores)

    def close(self) -> None:
        """Takes no more asks; those that run are their callers' to end."""
        self._closed = True

    def _check_room(self, wanted: int) -> None:
        if self._closed:
            raise ScorerUnavailable(f"scorer {self._card.name!r} is closed")
        if self._pending + wanted > self._at_once + self._limits.queue:
            FAILURES.labels(self._card.name, "queue_full").inc()
            raise ScorerUnavailable(
                f"scorer {self._card.name!r} is to be asked {wanted} times and {self._pending} asks wait or run "
                f"already; {self._at_once} run at once and its queue holds {self._limits.queue}",
                headers={"Retry-After": "1"},
            )

    async def _together(self, asks: Sequence[Ask[T]]) -> list[T]:
        tasks = [asyncio.ensure_future(self._in_turn(ask)) for ask in asks]
        self._pending += len(tasks)
        for task in tasks:
            task.add_done_callback(self._leave)
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _leave(self, _: "asyncio.Future[Any]") -> None:
        self._pending -= 1

    async def _in_turn(self, ask: Ask[T]) -> T:
        with QUEUED.labels(self._card.name).track_inprogress():
            await self._places.acquire()
        try:
            started = monotonic()
            found = await ask()
            SECONDS.labels(self._card.name).observe(monotonic() - started)
            return found
        finally:
            self._places.release()
