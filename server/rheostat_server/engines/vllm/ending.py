"""The end of vLLM's server: our drain comes before vLLM's own, which leaves the engine to nothing that comes later."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from rheostat_server.drain import Drain
from rheostat_server.draining_server import LAST_SECONDS, Times, stop_when_drained
from rheostat_server.runtime import runtime_in

SPARE_SECONDS: Final = 2 * LAST_SECONDS
"""How much longer than our drain vLLM's first process waits for the others: for their connections and the engine."""


@dataclass(slots=True)
class Ending:
    """Stops vLLM's uvicorn once nothing runs; vLLM then ends the engine, as it does whenever its server has ended.

    Told again, it goes on: vLLM's first process tells the others, and whoever ends a group of processes did so before.
    """

    server: uvicorn.Server
    drain: Drain
    times: Times
    _draining: asyncio.Task[None] | None = field(default=None, init=False)

    def listen(self) -> None:
        """Takes the place of vLLM's handlers of these signals."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self.begin, sig)

    def begin(self, sig: signal.Signals) -> None:
        if self.drain.leaving:
            return
        self.drain.leaving = True
        self._draining = asyncio.ensure_future(stop_when_drained(self.server, self.drain, sig, self.times))


def drain_at_the_end(app: FastAPI) -> None:
    """Adds to what the app's lifespan does: vLLM begins it when its own handlers are in place.

    Where another one listens for vLLM, as Ray does, `app.state.server` is None, and ending is that one's to do.
    """
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def and_listen(served: Any) -> AsyncGenerator[Any, None]:
        async with lifespan(served) as state:
            server, runtime = app.state.server, runtime_in(app)
            if server and runtime:
                Ending(server, runtime.admission.drain, Times.of(runtime.settings)).listen()
            yield state

    app.router.lifespan_context = and_listen
