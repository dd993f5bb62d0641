"""When a request that failed is sent again, and after how long."""

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from rheostat.errors import RheostatError

FIRST_S: Final = 0.5
LONGEST_S: Final = 8.0
PATIENCE_S: Final = 60.0
"""A server that wants to be left alone for longer than this is not asked again."""
SPREAD: Final = 0.25
"""Share by which a pause is drawn longer, so that clients that were refused together do not come back together."""


@dataclass(frozen=True, slots=True)
class Retries:
    """`most` is how often a request is sent again, after twice as long each time or when the server says."""

    most: int

    def __post_init__(self) -> None:
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 0:
            raise ValueError(f"retries is {self.most!r}; it must be a whole number from 0")

    def pause(self, failures: int, failure: RheostatError) -> float | None:
        """Seconds until the next try after so many failures, or None where there is none."""
        if failures > self.most or not failure.passing:
            return None
        least = min(LONGEST_S, FIRST_S * 2 ** (failures - 1)) if failure.retry_after is None else failure.retry_after
        return None if least > PATIENCE_S else least * random.uniform(1, 1 + SPREAD)


def seconds_to_wait(header: str | None) -> float | None:
    """`Retry-After`, in seconds or as a date; None where there is none, or it is neither."""
    if header is None:
        return None
    try:
        return max(0.0, float(header)) if header.isdecimal() else _until(header)
    except ValueError:
        return None


def _until(date: str) -> float:
    return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
