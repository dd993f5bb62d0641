"""How a fake engine is told to behave."""

from dataclasses import dataclass

from rheostat_server.errors import EngineFailed, RheostatError


@dataclass(frozen=True, slots=True)
class Orders:
    """`seconds_per_token` is slept before each token of a candidate; all candidates advance together.

    `fail_after` is how many events a stream tells before it fails; a whole answer fails wherever it is set.
    `seconds_per_load` is slept before a blend is loaded or unloaded.
    """

    seconds_per_token: float = 0.0
    fail_after: int | None = None
    seconds_per_load: float = 0.0
    fails_to_load: bool = False

    def failure(self) -> RheostatError:
        return EngineFailed("the fake engine fails, as it was told to")
