"""What a caller may have by minute, and at once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from rheostat_server.limits.quota import LimitName


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of a caller, None where it has none; `parallel` is of requests open at once."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    candidates_per_minute: int | None = None
    parallel: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise ValueError(f"{field.name} is {value}; it must be at least 1, or left out for no limit")

    def by_minute(self) -> dict[LimitName, int]:
        limits: Mapping[LimitName, int | None] = {
            "requests": self.requests_per_minute,
            "tokens": self.tokens_per_minute,
            "candidates": self.candidates_per_minute,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}
