"""How many candidates a request gets: as many as it wants, or as the engine has room for."""

from dataclasses import dataclass

from rheostat_server.engines import Occupancy


@dataclass(frozen=True, slots=True)
class Breadth:
    """The number of candidates, and why it is not the number wanted; None where it is."""

    candidates: int
    why: str | None = None


def breadth(wanted: int, engine: Occupancy | None, *, least: int, requests: int) -> Breadth:
    """The candidates that a request gets, from `least` to `wanted`.

    Best-of-N costs little in an idle engine and N times as much in a full one. So a request that finds others waiting
    takes the least; another one takes what is free, and no more than an even share of the room for the `requests` that
    this server reranks now, itself one of them.
    """
    if engine is None or wanted <= least:
        return Breadth(wanted)
    if engine.waiting:
        return Breadth(least, f"{engine.waiting} sequences wait in the engine's queue")
    free, share = engine.room - engine.running, engine.room // requests
    if wanted <= min(free, share):
        return Breadth(wanted)
    return Breadth(
        max(least, min(free, share)),
        f"the engine runs {engine.running} of {engine.room} sequences, and {requests} requests share them",
    )
