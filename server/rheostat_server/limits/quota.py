"""What is left to a caller of its limits by minute, and the headers that say so; pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

LimitName = Literal["requests", "tokens", "candidates"]
MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Used:
    """What a caller used of a limit in the last minute, and the seconds until the first of it is a minute old."""

    amount: int = 0
    frees_in: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A limit, and what is used of it; tokens, which are counted after the work, may go over it."""

    limit: int
    used: Used

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used.amount)

    def after(self, amount: int) -> "Standing":
        """What it will be once `amount` more is used, now."""
        frees_in = self.used.frees_in if self.used.amount else MINUTE
        return Standing(self.limit, Used(self.used.amount + amount, frees_in)) if amount else self


@dataclass(frozen=True, slots=True)
class Quota:
    """How a caller stands when its request is admitted or refused; a limit that it does not have is not named."""

    standings: Mapping[LimitName, Standing]

    def headers(self) -> dict[str, str]:
        """Named as OpenAI names them. The reset is when the first of what is used comes free, "0s" if nothing is."""
        headers: dict[str, str] = {}
        for name, standing in self.standings.items():
            headers[f"x-ratelimit-limit-{name}"] = str(standing.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(standing.left)
            headers[f"x-ratelimit-reset-{name}"] = f"{whole_seconds(standing.used)}s"
        return headers


def whole_seconds(used: Used) -> int:
    """Seconds until the first of it is free, rounded up; at least 1 while anything is used."""
    return max(1, math.ceil(used.frees_in)) if used.amount else 0


def left_of_two_windows(limit: int, *, before: int, fades_in: float, now: int, ends_in: float) -> Used:
    """What a sliding window counter holds: a window that is over, counted in part, and the one that fills.

    The use is `before * fades_in / 60 + now`: what was used `before` is taken to have been spread evenly, and fades
    to nothing in `fades_in` seconds. The window that fills `ends_in` some seconds, then fades itself over a minute.
    `frees_in` is when the use falls below both its amount and the limit.
    """
    used = int(before * fades_in / MINUTE + now)
    if not used:
        return Used()
    wanted = min(used, limit)
    if now < wanted:
        return Used(used, fades_in - MINUTE * (wanted - now) / before)
    return Used(used, ends_in + MINUTE * (1 - wanted / now))
