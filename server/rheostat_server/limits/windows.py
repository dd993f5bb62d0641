"""The seams of the rate limits: what was used in the last minute, and who has requests open."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from rheostat_server.limits.quota import LimitName, Used


@dataclass(frozen=True, slots=True)
class Taken:
    """What a caller took of a limit, and when by the clock that it is counted by."""

    name: LimitName
    caller: str
    limit: int
    amount: int
    at: float


class Windows(Protocol):
    """What callers used in the last minute. Requests and candidates are taken, if there is room; tokens are added."""

    async def used(self, name: LimitName, caller: str, limit: int) -> Used: ...

    async def take(self, name: LimitName, caller: str, limit: int, amount: int) -> Taken | None:
        """Counts `amount`, all or nothing: None if it does not fit below the limit."""
        ...

    async def give_back(self, taken: Taken) -> None:
        """Counts it no longer."""
        ...

    async def add_tokens(self, caller: str, amount: int) -> None: ...


class Leases(Protocol):
    """Requests that are open at once."""

    def held(self, caller: str, limit: int) -> AbstractAsyncContextManager[bool]:
        """Holds one of `limit` places until it is left; False, and nothing held, if all are taken."""
        ...
