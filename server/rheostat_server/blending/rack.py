"""Which blends the engine has loaded: one is loaded by the first request for it, and stays until its room is needed."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, Protocol

from rheostat_server.blending.store import BlendPoint
from rheostat_server.blending.telemetry import EVICTIONS, LOAD_SECONDS, LOADED, LOADS, REFUSED
from rheostat_server.engines import Part
from rheostat_server.errors import EngineUnavailable, NoBlendFree

PATIENCE: Final = 10.0
LONGEST: Final = 60.0


class Loads(Protocol):
    """What an engine has for blends; see `engines.Engine`."""

    async def load_blend(self, address: str, parts: Sequence[Part]) -> None: ...

    async def unload_blend(self, address: str) -> None: ...


@dataclass(slots=True)
class _Slot:
    """A blend that is loaded, or about to be; `pins` are the requests that it must not leave."""

    point: BlendPoint
    loading: "asyncio.Task[None]"
    pins: int = 0


@dataclass(slots=True)
class Rack:
    """At most `room` blends of an engine. Belongs to one event loop.

    What the book says is true before it is done: a blend that is to go is taken out of the book at once, and its place
    is that of the one to come. The engine is told in the order of the book, one thing at a time. A request waits
    `patience` seconds for a place, and `longest` until its blend is loaded; so long the engine has for each thing.
    """

    engine: Loads
    room: int
    patience: float = PATIENCE
    longest: float = LONGEST
    _slots: OrderedDict[str, _Slot] = field(default_factory=OrderedDict)
    _leaving: list[str] = field(default_factory=list)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def loaded(self) -> list[str]:
        """Addresses, that of the longest unused first."""
        return list(self._slots)

    @asynccontextmanager
    async def held(self, point: BlendPoint) -> AsyncGenerator[None, None]:
        """The engine has the blend until the block ends; a point without parts needs none.

        Raises:
            NoBlendFree: every blend that is loaded is in use, and none came free in time.
            EngineFailed, EngineUnavailable: it cannot be loaded, or takes too long; it is then as if nobody had asked
                for it.
        """
        if not point.parts:
            yield
            return
        slot = await self._pinned(point)
        try:
            with self._too_slow(point.address):
                async with asyncio.timeout(self.longest):
                    await asyncio.shield(slot.loading)
            yield
        finally:
            self._release(slot)

    async def _pinned(self, point: BlendPoint) -> _Slot:
        try:
            async with asyncio.timeout(self.patience):
                while (slot := self._claimed(point)) is None:
                    await self._freed.wait()
        except TimeoutError:
            REFUSED.inc()
            raise NoBlendFree(room=self.room, seconds=self.patience) from None
        slot.pins += 1
        self._slots.move_to_end(point.address)
        return slot

    def _claimed(self, point: BlendPoint) -> _Slot | None:
        """The blend's slot; where it has none, a new one, or that of the longest unused; None where all are in use."""
        if slot := self._slots.get(point.address):
            return slot
        leaving: _Slot | None = None
        if len(self._slots) >= self.room:
            leaving = next((slot for slot in self._slots.values() if not slot.pins), None)
            if leaving is None:
                return None
            del self._slots[leaving.point.address]
            self._count()
        slot = self._slots[point.address] = _Slot(point, asyncio.ensure_future(self._put(point, leaving)))
        slot.loading.add_done_callback(lambda done: self._settle(slot, done))
        return slot

    async def _put(self, point: BlendPoint, leaving: _Slot | None) -> None:
        """Nothing is loaded before all that is to go has gone, what did not go the last time included.

        One that may have been loaded, or may yet be, as the engine did not say, is to go too.
        """
        async with self._turn:
            started = perf_counter()
            if leaving is not None:
                self._leaving.append(leaving.point.address)
            await self._empty()
            try:
                with self._too_slow(point.address):
                    async with asyncio.timeout(self.longest):
                        await self.engine.load_blend(point.address, point.parts)
            except EngineUnavailable:
                self._leaving.append(point.address)
                raise
            LOAD_SECONDS.observe(perf_counter() - started)

    async def _empty(self) -> None:
        while self._leaving:
            with self._too_slow(self._leaving[0]):
                async with asyncio.timeout(self.longest):
                    await self.engine.unload_blend(self._leaving[0])
            self._leaving.pop(0)
            EVICTIONS.inc()

    @contextmanager
    def _too_slow(self, address: str) -> Generator[None]:
        try:
            yield
        except TimeoutError as exc:
            raise EngineUnavailable(
                f"the engine did not load or unload the blend {address} within {self.longest:g} s"
            ) from exc

    def _settle(self, slot: _Slot, done: "asyncio.Task[None]") -> None:
        """One that failed is taken out of the book, so that the next request tries again."""
        failed = done.cancelled() or done.exception() is not None
        LOADS.labels("failed" if failed else "loaded").inc()
        if failed and self._slots.get(slot.point.address) is slot:
            del self._slots[slot.point.address]
            self._wake()
        self._count()

    def _count(self) -> None:
        """Those that are loaded; none that is yet to be."""
        LOADED.set(sum(slot.loading.done() for slot in self._slots.values()))

    def _release(self, slot: _Slot) -> None:
        slot.pins -= 1
        if not slot.pins:
            self._wake()

    def _wake(self) -> None:
        """All who wait look again, in the order in which they came."""
        self._freed.set()
        self._freed = asyncio.Event()

    async def close(self) -> None:
        """Ends what is being loaded; the engine frees the rest when it is closed."""
        loading = [slot.loading for slot in self._slots.values()]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
