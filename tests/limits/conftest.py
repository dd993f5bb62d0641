"""A Redis, and rate limits in memory and in it."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from rheostat_server.limits.rate_limits import RateLimits
from tests.limits.redis_server import RedisServer

PATIENT = 30.0
"""Seconds: on a machine that is busy a Redis may be slow without being stalled."""

Opened = Callable[..., RateLimits]


@pytest.fixture
def redis_server(tmp_path: Path) -> Generator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def opened() -> AsyncGenerator[Opened]:
    """Opens rate limits, which are closed when the test ends."""
    async with AsyncExitStack() as stack:

        def over(uri: str | None, *, fail_open: bool = False, deadline: float = PATIENT) -> RateLimits:
            limits = RateLimits.over(uri, fail_open=fail_open, deadline=deadline)
            stack.push_async_callback(limits.close)
            return limits

        yield over


@pytest.fixture(params=["memory", "redis"])
def limits(request: pytest.FixtureRequest, opened: Opened) -> RateLimits:
    if request.param == "memory":
        return opened(None)
    server: RedisServer = request.getfixturevalue("redis_server")
    return opened(server.uri)
