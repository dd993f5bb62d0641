"""The seams of the rate limits: what was used in the last minute, and who has requests open."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from rheostat_server.limits.quota import LimitName, Used


class Windows(Protocol):
    """What callers used in the last minute. Requests and candidates are taken, if there is room; tokens are added."""

    async def used(self, name: LimitName, caller: str, limit: int) -> Used: ...

    async def take(self, name: LimitName, caller: str, limit: int, amount: int) -> bool:
        """Counts `amount`, all or nothing: False if it does not fit below the limit."""
        ...

    async def add_tokens(self, caller: str, amount: int) -> None: ...


class Leases(Protocol):
    """Requests that are open at once."""

    def held(self, caller: str, limit: int) -> AbstractAsyncContextManager[bool]:
        """Holds one of `limit` places until it is left; False, and nothing held, if all are taken."""
        ...
