"""Redis gone or slow: every call has a deadline, and the operator chose what becomes of a request then."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from rheostat_server.limits.refusals import LimitsUnavailable, TooManyRequests
from rheostat_server.limits.telemetry import FAILURES

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Watch:
    """Once a call failed, one caller at a time tries whether Redis is back; the others are not kept waiting."""

    def __init__(
        self, *, where: str, failures: tuple[type[Exception], ...], deadline: float | None, fail_open: bool
    ) -> None:
        """`where` is the host and the port, for the log; `fail_open` admits what cannot be checked.

        `failures` are the exceptions that mean Redis; others are ours, and go on.
        """
        self._where = where
        self._failures: tuple[type[Exception], ...] = (*failures, TimeoutError)
        self._deadline = deadline
        self._fail_open = fail_open
        self._down = False
        self._trying = False

    async def asked(self, ask: Callable[[], Awaitable[T]], *, otherwise: T) -> T:
        """What `ask` answers; `otherwise` if Redis does not and requests are admitted then.

        Raises:
            LimitsUnavailable: Redis does not answer, and requests are refused then.
        """
        try:
            return await self._tried(ask)
        except LimitsUnavailable:
            FAILURES.inc()
            if self._fail_open:
                return otherwise
            raise

    async def _tried(self, ask: Callable[[], Awaitable[T]]) -> T:
        if self._down and self._trying:
            raise LimitsUnavailable
        self._trying = trying = self._down
        try:
            async with asyncio.timeout(self._deadline):
                answer = await ask()
        except TooManyRequests:
            self._answers()
            raise
        except self._failures as exc:
            self._fails(exc)
            raise LimitsUnavailable from exc
        finally:
            if trying:
                self._trying = False
        self._answers()
        return answer

    def _fails(self, exc: Exception) -> None:
        if not self._down:
            self._down = True
            log.error(
                "rate limits: Redis fails", redis=self._where, cause=type(exc).__qualname__, admits=self._fail_open
            )

    def _answers(self) -> None:
        if self._down:
            self._down = False
            log.warning("rate limits: Redis answers again", redis=self._where)
