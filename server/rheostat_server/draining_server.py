"""uvicorn's server, which lets what runs come to its end before it stops."""

import asyncio
import signal
from types import FrameType

import structlog
import uvicorn

from rheostat_server.drain import Drain

log = structlog.get_logger(__name__)

LAST_SECONDS = 5
"""For connections to close once nothing runs on them."""


class DrainingServer(uvicorn.Server):
    """Told to stop, it goes on listening and answers 503 until no request runs or the time is over; then it stops.

    Told a second time, it stops at once.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, *, seconds: float) -> None:
        config.timeout_graceful_shutdown = LAST_SECONDS
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain.begun or self._loop is None or not self.started:
            super().handle_exit(sig, frame)
            return
        self._drain.begun = True
        self._loop.call_soon_threadsafe(self._begin, sig, frame)

    def _begin(self, sig: int, frame: FrameType | None) -> None:
        self._draining = asyncio.ensure_future(self._stop_when_drained(sig, frame))

    async def _stop_when_drained(self, sig: int, frame: FrameType | None) -> None:
        log.info("draining", signal=signal.Signals(sig).name, requests=self._drain.running, seconds=self._seconds)
        if not await self._drain.done(self._seconds):
            log.warning("requests are cut off", requests=self._drain.running)
            self.config.timeout_graceful_shutdown = 0
        super().handle_exit(sig, frame)
