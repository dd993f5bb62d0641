"""What a caller may have by minute and at once, checked as its requests begin and end: the file to read first."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from rheostat_server.errors import NoBlendFree
from rheostat_server.limits.afterwards import Afterwards
from rheostat_server.limits.memory import MemoryLeases, MemoryWindows
from rheostat_server.limits.quota import LimitName, Quota, Standing
from rheostat_server.limits.rates import Rates
from rheostat_server.limits.refusals import (
    LimitsUnavailable,
    QueueFull,
    QueueTimeout,
    TooManyRequests,
    over_parallel,
    over_rate,
)
from rheostat_server.limits.telemetry import LIMITED
from rheostat_server.limits.watch import Watch
from rheostat_server.limits.windows import Leases, Taken, Windows

Closing = Callable[[], Coroutine[Any, Any, None]]
NO_QUOTA: Final = Quota({})
REFUSED: Final = (TooManyRequests, QueueFull, QueueTimeout, NoBlendFree)


class RateLimits:
    """Requests and candidates are counted before the work, all or nothing, and tokens after it.

    So a request may overshoot its caller's tokens, and the next ones are refused until there is room. Nothing is
    counted for a request that is refused, by a limit, by the queue after it, or as no blend came free for it: what was
    counted is given back. Only what Redis does after the deadline stays counted. None of this ever admits more than a
    limit.
    """

    def __init__(
        self,
        windows: Windows,
        leases: Leases,
        watch: Watch,
        *,
        afterwards: Afterwards,
        closing: tuple[Closing, ...] = (),
    ) -> None:
        """`closing` is called in its order, once nothing is left to be counted."""
        self._windows = windows
        self._leases = leases
        self._watch = watch
        self._afterwards = afterwards
        self._closing = closing

    @classmethod
    def over(cls, uri: str | None, *, fail_open: bool = False, deadline: float = 0.5) -> "RateLimits":
        """In this process's memory, or in the Redis at `uri`, shared by all workers.

        `fail_open` admits requests while Redis does not answer within `deadline` seconds, without any limit; else they
        are refused. An event loop that is kept busy for that long looks alike.

        Raises:
            CannotStart: `uri` is no address of a Redis.
        """
        afterwards = Afterwards()
        if uri is None:
            watch = Watch(where="memory", failures=(), deadline=None, fail_open=False)
            return cls(MemoryWindows(), MemoryLeases(), watch, afterwards=afterwards)
        from rheostat_server.limits import shared

        pool = shared.connect(uri, deadline=deadline)
        leases = shared.SharedLeases(pool, afterwards, deadline=deadline)
        watch = Watch(
            where=shared.address_of(pool),
            failures=shared.FAILURES_OF_REDIS,
            deadline=deadline,
            fail_open=fail_open,
        )
        closing = (leases.close, pool.aclose)
        return cls(shared.SharedWindows(pool), leases, watch, afterwards=afterwards, closing=closing)

    @asynccontextmanager
    async def request(self, caller: str, rates: Rates, *, candidates: int) -> AsyncGenerator[Quota]:
        """A request of `caller`, from before its work until it ends; what is left to the caller once it is counted.

        Raises:
            TooManyRequests: a limit has no room for it.
            LimitsUnavailable: Redis does not answer, and `fail_open` is not set.
        """
        async with AsyncExitStack() as held:
            quota = NO_QUOTA
            if rates != Rates():
                wanted: dict[LimitName, int] = {"requests": 1, "candidates": candidates}
                admit = partial(self._admit, held, caller, rates, wanted)
                quota = await self._watch.asked(admit, otherwise=NO_QUOTA)
            yield quota

    async def check(self, caller: str, rates: Rates) -> None:
        """Refuses a request for which there is no room, before any work is done for it; nothing is counted.

        Raises:
            TooManyRequests, LimitsUnavailable: as `request`.
        """
        if rates.by_minute():
            quota = await self._watch.asked(partial(self._quota, caller, rates), otherwise=NO_QUOTA)
            _refuse_over(quota, {})

    async def spend(self, caller: str, rates: Rates, *, tokens: int) -> None:
        """Counts tokens once they are known, even if the request is cancelled meanwhile.

        The work is done, so it never fails: tokens that Redis does not take are not counted, and the failure is.
        """
        if rates.tokens_per_minute is not None and tokens > 0:
            await self._afterwards.done(self._add_tokens(caller, tokens))

    async def close(self) -> None:
        await self._afterwards.close()
        for close in self._closing:
            await close()

    async def _admit(self, held: AsyncExitStack, caller: str, rates: Rates, wanted: Mapping[LimitName, int]) -> Quota:
        quota = await self._quota(caller, rates)
        _refuse_over(quota, wanted)
        await self._lease(held, caller, rates, quota)
        await self._take(held, caller, rates, wanted)
        return Quota({name: standing.after(wanted.get(name, 0)) for name, standing in quota.standings.items()})

    async def _quota(self, caller: str, rates: Rates) -> Quota:
        limits = rates.by_minute()
        return Quota({n: Standing(limit, await self._windows.used(n, caller, limit)) for n, limit in limits.items()})

    async def _lease(self, held: AsyncExitStack, caller: str, rates: Rates, quota: Quota) -> None:
        if rates.parallel is None:
            return
        if not await held.enter_async_context(self._leases.held(caller, rates.parallel)):
            raise _counted("parallel", over_parallel(rates.parallel, quota))

    async def _take(self, held: AsyncExitStack, caller: str, rates: Rates, wanted: Mapping[LimitName, int]) -> None:
        """Finds no room where another worker was faster since it was looked for."""
        limits = rates.by_minute()
        for name, amount in wanted.items():
            if name not in limits or not amount:
                continue
            taken = await self._windows.take(name, caller, limits[name], amount)
            if taken is None:
                raise _counted(name, over_rate(name, await self._quota(caller, rates), wanted=amount))
            held.push_async_exit(partial(self._give_back_if_refused, taken))

    async def _give_back_if_refused(
        self, taken: Taken, kind: object, error: BaseException | None, trace: object
    ) -> None:
        """As a request ends, or as it is found that it cannot begin."""
        if isinstance(error, REFUSED):
            await self._afterwards.done(self._give_back(taken))

    async def _give_back(self, taken: Taken) -> None:
        with suppress(LimitsUnavailable):
            await self._watch.asked(partial(self._windows.give_back, taken), otherwise=None)

    async def _add_tokens(self, caller: str, tokens: int) -> None:
        try:
            await self._watch.asked(partial(self._windows.add_tokens, caller, tokens), otherwise=None)
        except LimitsUnavailable:
            return


def _refuse_over(quota: Quota, wanted: Mapping[LimitName, int]) -> None:
    """Raises TooManyRequests where less is left than is wanted, one of whatever `wanted` does not name."""
    for name, standing in quota.standings.items():
        if standing.left < wanted.get(name, 1):
            raise _counted(name, over_rate(name, quota, wanted=wanted.get(name, 1)))


def _counted(name: str, refusal: TooManyRequests) -> TooManyRequests:
    LIMITED.labels(name).inc()
    return refusal
