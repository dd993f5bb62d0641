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
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise RequestTimeout(f"the answer took longer than {of or seconds:g} s, the most that it may take") from exc


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
                async with within(max(0.0, until - monotonic()), of=seconds):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            yield chunk
