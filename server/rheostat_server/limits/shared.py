"""Windows and leases in Redis, which all workers share; the windows are the `limits` library's.

Requests and candidates go by its moving window: exact, an entry of some 20 bytes for each, which is what was admitted
in the last minute and no more; a script of ours takes entries, which can be given back. Tokens would need an entry
each, so they go by its sliding window counter: two numbers a caller, and a use that is exact for a caller that spends
evenly. After a burst it frees over the next minute, not at once; and whoever spends nothing, then all at a window's
end, may spend up to twice the limit in a minute.

Clocks: the moving window goes by the workers' clocks, which must agree to a second or so. A worker whose clock is set
back refuses a caller for a minute at most, for then Redis forgets the caller. All else goes by Redis's clock.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rheostat_server.errors import CannotStart
from rheostat_server.limits.afterwards import Afterwards
from rheostat_server.limits.quota import MINUTE, LimitName, Used, left_of_two_windows
from rheostat_server.limits.telemetry import FAILURES
from rheostat_server.limits.windows import Taken

PREFIX: Final = "rheostat"
DEADLINE: Final = 0.5
"""Seconds."""
LEASE: Final = 30.0
"""Seconds after which the places of a worker that was killed are free; a living one renews its own three times."""
CONNECTIONS: Final = 32
TOKENS: Final = RateLimitItemPerMinute(2**53, namespace="tokens")
"""Tokens are counted whatever the limit is, so the counter's own is the greatest number that Lua counts to."""

TAKE_LEASE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, limit, length = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + 2 * length, '+inf')
if not redis.call('ZSCORE', KEYS[1], lease) and redis.call('ZCARD', KEYS[1]) >= limit then
    return 0
end
redis.call('ZADD', KEYS[1], now + length, lease)
redis.call('PEXPIRE', KEYS[1], length)
return 1
"""
"""Takes a lease or renews it. One that ends later than any may is of a time before the clock was set back."""


TAKE: Final = """
local now, limit, amount = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local last = redis.call('LINDEX', KEYS[1], limit - amount)
if amount > limit or (last and tonumber(last) >= now - 60) then
    return 0
end
for _ = 1, amount do
    redis.call('LPUSH', KEYS[1], now)
end
redis.call('LTRIM', KEYS[1], 0, limit - 1)
redis.call('EXPIRE', KEYS[1], 60)
return 1
"""
"""Takes entries in the library's moving window, a list of times, as the library would; but at a time that is known, so
that they can be given back."""

FAILURES_OF_REDIS: Final = (RedisError, OSError, TimeoutError)


def connect(uri: str, *, deadline: float = DEADLINE) -> BlockingConnectionPool:
    """Connections to a Redis; none is opened yet. `deadline` is in seconds, for each step of a call.

    Raises:
        CannotStart: the address cannot be read. It is not told, for it may hold a password.
    """
    try:
        if not uri.startswith(("redis://", "rediss://")):
            raise ValueError("not an address of Redis")
        return BlockingConnectionPool.from_url(
            uri,
            max_connections=CONNECTIONS,
            timeout=None,
            socket_timeout=deadline,
            socket_connect_timeout=deadline,
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError:
        raise CannotStart(
            "the address of the rate limits' Redis cannot be read; it must be like redis://:password@host:6379/0, or "
            "rediss:// for TLS, with the password's special characters percent-encoded"
        ) from None


def address_of(pool: BlockingConnectionPool) -> str:
    """Host and port, without what else an address may hold."""
    return f"{pool.connection_kwargs.get('host', 'localhost')}:{pool.connection_kwargs.get('port', 6379)}"


class SharedWindows:
    """What the library holds under a caller and its limit: a caller whose limit is changed begins a new minute."""

    def __init__(self, pool: BlockingConnectionPool) -> None:
        storage = RedisStorage(
            "redis://",
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=pool,  # type: ignore[arg-type] # named in its docstring, forgotten in its types
        )
        self._storage = storage
        self._moving = MovingWindowRateLimiter(storage)
        self._sliding = SlidingWindowCounterRateLimiter(storage)
        self._redis = Redis(connection_pool=pool)
        self._take = self._redis.register_script(TAKE)

    async def used(self, name: LimitName, caller: str, limit: int) -> Used:
        if name == "tokens":
            before, fades_in, now, lasts = await self._storage.get_sliding_window(TOKENS.key_for(caller), int(MINUTE))
            return left_of_two_windows(limit, before=before, fades_in=fades_in, now=now, ends_in=lasts - MINUTE)
        frees_at, left = await self._moving.get_window_stats(_item(name, limit), caller)
        return Used(limit - left, min(max(0.0, frees_at - time.time()), MINUTE))

    async def take(self, name: LimitName, caller: str, limit: int, amount: int) -> Taken | None:
        taken = Taken(name, caller, limit, amount, at=time.time())
        if not await self._take(keys=[_list_of(taken)], args=[repr(taken.at), limit, amount]):
            return None
        return taken

    async def give_back(self, taken: Taken) -> None:
        await self._redis.lrem(_list_of(taken), taken.amount, repr(taken.at))

    async def add_tokens(self, caller: str, amount: int) -> None:
        await self._sliding.hit(TOKENS, caller, cost=amount)


def _item(name: LimitName, limit: int) -> RateLimitItemPerMinute:
    return RateLimitItemPerMinute(limit, namespace=name)


def _list_of(taken: Taken) -> str:
    """Where the library looks for it."""
    return f"{PREFIX}:{_item(taken.name, taken.limit).key_for(taken.caller)}"


class SharedLeases:
    """A sorted set of leases a caller, each with the time when it lapses unless its worker renews it."""

    def __init__(
        self,
        pool: BlockingConnectionPool,
        afterwards: Afterwards,
        *,
        length: float = LEASE,
        deadline: float = DEADLINE,
    ) -> None:
        """Both in seconds; `deadline` is that of giving a lease back."""
        self._redis = Redis(connection_pool=pool)
        self._script = self._redis.register_script(TAKE_LEASE)
        self._afterwards = afterwards
        self._length = length
        self._deadline = deadline
        self._open: dict[str, tuple[str, int]] = {}
        """The key and the limit of each lease that this worker holds."""
        self._renewing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def held(self, caller: str, limit: int) -> AsyncGenerator[bool]:
        key, lease = f"{PREFIX}:parallel/{caller}", uuid4().hex
        try:
            taken = await self._take(key, lease, limit)
        except BaseException:
            self._afterwards.begin(self._give_back(key, lease))  # Redis may have granted it all the same
            raise
        if not taken:
            yield False
            return
        self._hold(key, lease, limit)
        try:
            yield True
        finally:
            del self._open[lease]
            await self._afterwards.done(self._give_back(key, lease))

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})

    async def _take(self, key: str, lease: str, limit: int) -> bool:
        return bool(await self._script(keys=[key], args=[lease, limit, int(self._length * 1000)]))

    def _hold(self, key: str, lease: str, limit: int) -> None:
        self._open[lease] = (key, limit)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        """Until none is held. What Redis does not renew now, it does at the next round, or another took the place."""
        while self._open:
            await asyncio.sleep(self._length / 3)
            try:
                async with asyncio.timeout(self._length / 3):
                    for lease, (key, limit) in list(self._open.items()):
                        if lease in self._open:
                            await self._take(key, lease, limit)
            except FAILURES_OF_REDIS:
                FAILURES.inc()

    async def _give_back(self, key: str, lease: str) -> None:
        """What is not given back in time lapses by itself."""
        try:
            async with asyncio.timeout(self._deadline):
                await self._redis.zrem(key, lease)
        except FAILURES_OF_REDIS:
            FAILURES.inc()
