"""Answers to one request as requests of their own: for engines whose cache of prefixes lets them share a prefill."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from rheostat_server.engines import ChatBody, Engine, EngineRequest, Streams

COUNTED: Final[Mapping[str, Any]] = {"include_usage": True, "continuous_usage_stats": True}
"""Stream options by which vLLM, and the embedded engine, count an answer's tokens in each event."""


@asynccontextmanager
async def separate_streams(
    engine: Engine, request: EngineRequest, n: int, options: Mapping[str, Any]
) -> AsyncGenerator[Streams, None]:
    """`Engine.fan_out` by `n` calls of `stream`, with these stream options."""
    streams = [engine.stream(_one_of(request, number, options)) for number in range(n)]
    try:
        yield streams
    finally:
        for stream in streams:
            await stream.aclose()


def with_options(body: ChatBody, options: Mapping[str, Any]) -> Any:
    """The caller's stream options and these; what is no object stays as it is, for the engine to refuse."""
    given = body.get("stream_options")
    return {**(given or {}), **options} if given is None or isinstance(given, Mapping) else given


def _one_of(request: EngineRequest, number: int, options: Mapping[str, Any]) -> EngineRequest:
    """One answer's request; seeds ascend from the request's own, as vLLM's choices have them."""
    seed = request.body.get("seed")
    seeded = {"seed": _ascended(seed, number)} if isinstance(seed, int) and not isinstance(seed, bool) else {}
    body = {**request.body, "n": 1, "stream": True, "stream_options": with_options(request.body, options), **seeded}
    return replace(request, body=body, request_id=f"{request.request_id}-{number}")


def _ascended(seed: int, number: int) -> int:
    """Engines take 64 bits, signed or not: after the greatest number of the seed's own kind comes 0."""
    end = 2**63 if seed < 2**63 else 2**64
    return seed + number if seed + number < end else (seed + number) % end
