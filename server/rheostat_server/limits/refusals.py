"""Every error that the limits and the queue raise.

RheostatError
├── TooManyRequests 429       the caller used what it may have by minute, or has as many requests open as it may
├── LimitsUnavailable 503     the store of the rate limits is gone or slow, and the operator chose to refuse then
├── QueueFull 503             too many requests wait, most of them this caller's
└── QueueTimeout 503          a request's turn did not come in time
"""

from typing import Final

from rheostat_server.errors import RheostatError
from rheostat_server.limits.quota import MINUTE, LimitName, Quota, whole_seconds

SOON: Final = {"Retry-After": "1"}


class TooManyRequests(RheostatError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class LimitsUnavailable(RheostatError):
    status = 503
    type = "limits_unavailable"
    code = "limits_unavailable"

    def __init__(self) -> None:
        super().__init__("the store of the rate limits does not answer; try again in a second", headers=SOON)


class QueueFull(RheostatError):
    status = 503
    type = "overloaded_error"
    code = "queue_full"

    def __init__(self, *, waiting: int, own: int) -> None:
        super().__init__(
            f"the queue is full: {waiting} requests wait, {own} of them this caller's; try again in a second",
            headers=SOON,
        )


class QueueTimeout(RheostatError):
    status = 503
    type = "overloaded_error"
    code = "queue_timeout"

    def __init__(self, *, deadline: float) -> None:
        super().__init__(
            f"the request's turn did not come within the queue's deadline of {deadline:g} s; try again in a second",
            headers=SOON,
        )


def over_rate(name: LimitName, quota: Quota, *, wanted: int) -> TooManyRequests:
    """The refusal of a request that wants more than is left; one that wants more than its limit never fits.

    Of tokens a request wants 1: what it will use is not known.
    """
    standing = quota.standings[name]
    if wanted > standing.limit:
        after = int(MINUTE)
        message = (
            f"the request asks for {wanted} {name}; this caller may have {standing.limit} a minute, so it can never "
            f"be admitted: ask for {standing.limit} at most"
        )
    else:
        after = max(1, whole_seconds(standing.used))
        message = (
            f"this caller may have {standing.limit} {name} a minute and used {standing.used.amount} in the last one; "
            f"the request needs {wanted}, and some come free in {after} s"
        )
    return TooManyRequests(message, headers={"Retry-After": str(after), **quota.headers()})


def over_parallel(limit: int, quota: Quota) -> TooManyRequests:
    return TooManyRequests(
        f"this caller may have {limit} requests open at once and has {limit}; there is room when one of them ends",
        headers={**SOON, **quota.headers()},
    )
