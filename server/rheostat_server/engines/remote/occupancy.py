"""How full the upstream server is: what we have sent it, and what vLLM's metrics say where it shows them."""

import asyncio
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

from rheostat_server.engines import Occupancy
from rheostat_server.engines.remote.upstream import Upstream

ASK_AGAIN_SECONDS: Final = 0.5
UNTOLD_SECONDS: Final = 10.0
"""For how long an upstream that told nothing is left alone: asking it again may keep a request waiting again."""
PATIENCE_SECONDS: Final = 1.0
_NUMBER: Final = r"\d+(?:\.\d*)?(?:e\+?\d\d?)?"
_GAUGE: Final = re.compile(
    rf"^vllm:num_requests_(running|waiting)(?:\{{[^}}\n]*\}})? ({_NUMBER})(?: \d+)?$", re.MULTILINE
)


@dataclass(slots=True)
class UpstreamOccupancy:
    """`sequences` is how many the upstream is said to run at once; `ours` are those that we wait for."""

    upstream: Upstream
    sequences: int
    ours: int = 0
    _told: dict[str, float] = field(default_factory=dict)
    _ask_at: float = 0.0

    @contextmanager
    def counted(self, sequences: int) -> Generator[None, None, None]:
        """Counts what is sent for as long as it is waited for."""
        self.ours += sequences
        try:
            yield
        finally:
            self.ours -= sequences

    async def now(self, client: httpx.AsyncClient) -> Occupancy:
        """The upstream's own figures, asked for twice a second at the most; ours where they are greater, or alone.

        One request asks and waits for them; others take what is known meanwhile.
        """
        if self.upstream.metrics is not None and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + PATIENCE_SECONDS
            self._told = await self._asked(client, self.upstream.metrics)
            self._ask_at = time.monotonic() + (ASK_AGAIN_SECONDS if self._told else UNTOLD_SECONDS)
        running = max(self.ours, int(self._told.get("running", 0)))
        waiting = int(self._told.get("waiting", 0))
        return Occupancy(
            running=min(running, self.sequences),
            waiting=max(waiting, running - self.sequences),
            room=self.sequences,
        )

    async def _asked(self, client: httpx.AsyncClient, url: str) -> dict[str, float]:
        """Sums over the upstream's replicas; nothing where it shows no such metrics."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                response = await client.get(url)
        except (httpx.HTTPError, TimeoutError):
            return {}
        told: dict[str, float] = {}
        for name, value in _GAUGE.findall(response.text if response.is_success else ""):
            told[name] = told.get(name, 0.0) + float(value)
        return told
