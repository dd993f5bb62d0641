"""Whether a request may run now: the server is not ending, it can be recorded, and caller and engine have room."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from rheostat_server.audit.log import AuditLog
from rheostat_server.callers import Caller
from rheostat_server.drain import Drain
from rheostat_server.limits.fair_queue import NoQueue, Queue, Turn
from rheostat_server.limits.quota import Quota
from rheostat_server.limits.rate_limits import RateLimits

LAST_SECONDS: Final = 5.0
"""For requests that were cut off to come to their end."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What is left to the caller, and the request's turn."""

    quota: Quota
    turn: Turn


@dataclass(frozen=True, slots=True)
class Admission:
    """What all requests of a server pass before their work; without settings it lets everyone in."""

    drain: Drain = field(default_factory=Drain)
    audit: AuditLog | None = None
    rates: RateLimits = field(default_factory=lambda: RateLimits.over(None))
    queue: Queue = field(default_factory=NoQueue)
    last_seconds: float = LAST_SECONDS

    @asynccontextmanager
    async def admitted(self, caller: Caller, *, candidates: int) -> AsyncGenerator[Admitted, None]:
        """A request, from before its work until its end.

        Raises:
            Draining: the server is about to end.
            AuditUnavailable: it could not be recorded, and the operator wants every request to be.
            TooManyRequests, LimitsUnavailable: by its caller's rates.
            QueueFull, QueueTimeout: too many wait, or its turn did not come.
        """
        with self.drain.request():
            if self.audit is not None:
                await self.audit.check()
            rates = caller.policy.envelope.rates
            async with (
                self.rates.request(caller.name, rates, candidates=candidates) as quota,
                self.queue.turn(caller.name) as turn,
            ):
                yield Admitted(quota, turn)

    async def check(self, caller: Caller) -> None:
        """Raises what `admitted` would for a caller whose rates have no room, before its body is read and planned."""
        await self.rates.check(caller.name, caller.policy.envelope.rates)

    def counted(self, caller: Caller) -> AbstractAsyncContextManager[Quota]:
        """A request that asks nothing of the engine: it counts for the caller's rates, and waits for no turn."""
        return self.rates.request(caller.name, caller.policy.envelope.rates, candidates=0)

    async def spend(self, caller: Caller, tokens: int) -> None:
        """Counts a request's tokens once they are known."""
        await self.rates.spend(caller.name, caller.policy.envelope.rates, tokens=tokens)

    def counts_tokens(self, caller: Caller) -> bool:
        """Whether anyone wants to know how many a request takes."""
        return self.audit is not None or caller.policy.envelope.rates.tokens_per_minute is not None

    async def close(self) -> None:
        """Lets requests that were cut off count what they used, give back their places, and leave their records."""
        await self.drain.done(self.last_seconds)
        async with AsyncExitStack() as stack:
            if self.audit is not None:
                stack.push_async_callback(self.audit.close)
            stack.push_async_callback(self.rates.close)
