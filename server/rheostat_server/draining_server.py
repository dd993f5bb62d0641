"""uvicorn's server, which lets what runs come to its end before it stops."""

import asyncio
import signal
from dataclasses import dataclass
from types import FrameType

import structlog
import uvicorn

from rheostat_server.drain import Drain
from rheostat_server.settings import Settings

log = structlog.get_logger(__name__)

LAST_SECONDS = 5
"""For connections to close once nothing runs on them."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a server's end: while it is no longer ready and still takes requests, and then for what runs."""

    leave: float
    drain: float

    @classmethod
    def of(cls, settings: Settings) -> "Times":
        return cls(settings.leave_seconds, settings.drain_seconds)


class DrainingServer(uvicorn.Server):
    """Told to stop, it goes on listening and answers 503 until no request runs or the time is over; then it stops.

    Told a second time, it stops at once.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, times: Times) -> None:
        super().__init__(config)
        self._drain = drain
        self._times = times
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain.leaving or self._loop is None or not self.started:
            super().handle_exit(sig, frame)
            return
        self._drain.leaving = True
        self._loop.call_soon_threadsafe(self._begin, sig)

    def _begin(self, sig: int) -> None:
        self._draining = asyncio.ensure_future(stop_when_drained(self, self._drain, sig, self._times))


async def stop_when_drained(server: uvicorn.Server, drain: Drain, sig: int, times: Times) -> None:
    """Tells a server to stop once nothing runs; what still does when the time is over is cut off."""
    if times.leave:
        log.info("leaving", signal=signal.Signals(sig).name, seconds=times.leave)
        await asyncio.sleep(times.leave)
    log.info("draining", signal=signal.Signals(sig).name, requests=drain.running, seconds=times.drain)
    server.config.timeout_graceful_shutdown = LAST_SECONDS
    if not await drain.done(times.drain):
        log.warning("requests are cut off", requests=drain.running)
        server.config.timeout_graceful_shutdown = 0
    uvicorn.Server.handle_exit(server, sig, None)
