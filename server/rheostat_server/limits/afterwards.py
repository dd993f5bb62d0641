"""Work that must be done although the request it belongs to is cancelled: giving back, and counting what was spent."""

import asyncio
from collections.abc import Coroutine


class Afterwards:
    """Runs such work in tasks of its own, which it keeps until they end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def done(self, work: Coroutine[None, None, None]) -> None:
        """Waits for it; whoever is cancelled meanwhile leaves, and the work goes on."""
        await asyncio.shield(self.begin(work))

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
