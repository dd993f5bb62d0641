"""Waiting for what must come, with an end: what a test waits for instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Callable


def until(is_so: Callable[[], bool], *, within_s: float = 60, every_s: float = 0.01) -> None:
    """Asks every `every_s` seconds.

    Raises:
        TimeoutError: it was not so within `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it was not so within {within_s:g} s")
        time.sleep(every_s)


async def until_it_is(is_so: Callable[[], bool], *, within_s: float = 20) -> None:
    """The same in an event loop, which goes on meanwhile."""
    async with asyncio.timeout(within_s):
        while not is_so():
            await asyncio.sleep(0.001)
