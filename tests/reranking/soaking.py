"""Many reranked requests of every kind, some of whose callers leave: each drawn by its number, so that runs repeat."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any, Final

import httpx

LEAVING: Final = 0.4
"""The share of callers that leave."""
AT_ONCE: Final = 8

Body = dict[str, Any]


async def soak(url: str, model: str, numbers: Iterable[int], *, patience: float) -> Counter[str]:
    """Sends the requests of these numbers, a few at once; how many were answered or left, and what else was said.

    A caller that leaves does so within `patience` seconds.
    """
    waiting = iter(numbers)
    ends: Counter[str] = Counter()

    async def caller() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            for number in waiting:
                ends[await _ask(http, model, Random(number), patience)] += 1

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return ends


async def _ask(http: httpx.AsyncClient, model: str, random: Random, patience: float) -> str:
    body = _body(model, random)
    leaves_after = random.uniform(0, patience) if random.random() < LEAVING else None
    try:
        async with asyncio.timeout(leaves_after):
            response = await http.post("/v1/chat/completions", json=body)
    except TimeoutError:
        return "left"
    whole = response.status_code == 200 and '"candidates"' in response.text
    return "answered" if whole else response.text


def _body(model: str, random: Random) -> Body:
    control: Body = {
        "mode": "rerank",
        "safety": round(random.random(), 2),
        "helpfulness": round(random.random(), 2),
        "candidates": random.randint(2, 5),
        "early_stop": random.random() < 0.5,
    }
    stream = random.random() < 0.5
    if stream:
        control["choose_after"] = random.choice([3, 10, "end"])
    messages = [{"role": "user", "content": f"What shall I plant in bed {random.randint(1, 99)}?"}]
    return {
        "model": model,
        "messages": messages,
        "max_tokens": random.randint(8, 32),
        "stream": stream,
        "control": control,
    }
