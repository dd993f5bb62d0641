"""The most seconds that an answer may take."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from time import monotonic

from rheostat_server.errors import RequestTimeout


@asynccontextmanager
async def within(seconds: float | None, *, of: float | None = None) -> AsyncGenerator[None, None]:
    """What runs inside is cancelled when they are over, the last of `of` seconds; no limit where there are none.

    Raises:
        RequestTimeout: they are over.
    """
    if seconds is not None and seconds <= 0:
        raise _too_long(of or seconds)
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise _too_long(of or seconds or 0) from exc


def _too_long(seconds: float) -> RequestTimeout:
    return RequestTimeout(f"the answer took longer than {seconds:g} s, the most that it may take")


async def each_within(seconds: float, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The chunks of a stream that may take so many seconds in all, and is closed with this.

    Whoever reads it may be one task for the first chunk and another for the rest, so each is waited for by itself.

    Raises:
        RequestTimeout: they are over.
    """
    async with aclosing(chunks):
        until = monotonic() + seconds
        while True:
            try:
                async with within(until - monotonic(), of=seconds):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            yield chunk
