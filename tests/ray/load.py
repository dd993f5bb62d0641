"""Dialled requests, whole and streamed, from the real openai client until it is enough; and what became of each."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from openai import APIError, AsyncOpenAI

ASKED: Final[dict[str, Any]] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "How do I repot a fern?"}],
    "max_tokens": 120,
    "extra_body": {"control": {"safety": 0.9, "helpfulness": 0.2}, "ignore_eos": True},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. `half` says that it ended as if it were whole and was not; times are `time.monotonic`'s."""

    began: float
    ended: float
    streamed: bool
    failure: str | None = None
    half: bool = False


@dataclass(slots=True)
class Load:
    """Callers that each ask again as soon as they are answered."""

    url: str
    outcomes: list[Outcome] = field(default_factory=list)
    _enough: bool = False

    @asynccontextmanager
    async def running(self, callers: int) -> AsyncGenerator[None]:
        """Until the block ends; requests under way then come to their end."""
        async with AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            tasks = [asyncio.create_task(self._call(client, streamed=number % 2 == 0)) for number in range(callers)]
            try:
                yield
            finally:
                self._enough = True
                await asyncio.gather(*tasks)

    @property
    def failed(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.failure]

    @property
    def half(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.half]

    async def _call(self, client: AsyncOpenAI, *, streamed: bool) -> None:
        while not self._enough:
            began = time.monotonic()
            try:
                whole = await (_streamed(client) if streamed else _whole(client))
            except (APIError, httpx.TransportError) as exc:
                self.outcomes.append(Outcome(began, time.monotonic(), streamed, failure=f"{type(exc).__name__}: {exc}"))
            else:
                self.outcomes.append(Outcome(began, time.monotonic(), streamed, half=not whole))


async def _whole(client: AsyncOpenAI) -> bool:
    answer = await client.chat.completions.create(**ASKED)
    return bool(answer.choices[0].finish_reason) and "control" in (answer.model_extra or {})


async def _streamed(client: AsyncOpenAI) -> bool:
    """Whole with a reason for its end, and the receipt that comes last."""
    finished = told = False
    async for chunk in await client.chat.completions.create(**ASKED, stream=True):
        finished |= any(choice.finish_reason for choice in chunk.choices)
        told |= "control" in (chunk.model_extra or {})
    return finished and told
