"""A server that is about to end: it says so, lets what runs go on to its end, and sends what comes elsewhere."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rheostat_server.errors import Draining


@dataclass(slots=True)
class Drain:
    """Counts the requests that run; while it is `leaving` it is not ready, and once it has `begun` none is let in."""

    leaving: bool = False
    begun: bool = False
    running: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        """Raises Draining once it has begun."""
        if self.begun:
            raise Draining

    def check_ready(self) -> None:
        """Raises Draining from the moment on that the server is told to end."""
        if self.leaving or self.begun:
            raise Draining

    @contextmanager
    def request(self) -> Generator[None, None, None]:
        """Counts a request for as long as it runs."""
        self.check()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._changed.set()

    async def done(self, within: float) -> bool:
        """Lets nothing in any more, and waits until nothing runs; whether that was so in time."""
        self.begun = True
        try:
            async with asyncio.timeout(within):
                while self.running:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
