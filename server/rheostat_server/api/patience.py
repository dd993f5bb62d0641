"""Sending to a caller that may not read."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.types import Message, Send


@asynccontextmanager
async def patient(send: Send, seconds: float) -> AsyncGenerator[Send]:
    """`send` for the block's own task, which is broken off with TimeoutError if one call takes longer than that.

    All calls share one timer: one for each would be a third of what a stream's events cost us.
    """
    loop = asyncio.get_running_loop()
    begun: float | None = None
    timer: asyncio.TimerHandle

    async def sending(message: Message) -> None:
        nonlocal begun
        begun = loop.time()
        await send(message)
        begun = None

    def look() -> None:
        nonlocal timer
        now = loop.time()
        if begun is not None and now >= begun + seconds:
            limit.reschedule(now)
        else:
            timer = loop.call_at((now if begun is None else begun) + seconds, look)

    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds, look)
        try:
            yield sending
        finally:
            timer.cancel()
