"""Asks a running server under dials and brings its answers back as samples: what is measured is what is served."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from rheostat_training.progress import Progress, Task
from rheostat_training.rows import Request, Sample

ANSWER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Where to ask, for which model, in which mode, and how answers are drawn."""

    url: str
    model: str
    mode: str
    temperature: float = 0.7
    max_tokens: int = 256
    concurrency: int = 64
    seed: int = 0


class ServerRefused(RuntimeError):
    """The server did not answer, or with an error; the message names it and holds the status and its own words."""


def answers(served: ServedModel, requests: Sequence[Request], *, progress: Progress | None = None) -> list[Sample]:
    """One answer a request, in their order; a request without dials leaves them to the server's defaults.

    Request i is asked with the seed `served.seed + i`, so that a run can be repeated on the same engine.

    Raises:
        ServerRefused: any request was not answered; none is left out in silence.
    """
    return asyncio.run(_answers(served, requests, progress or Progress.auto()))


async def _answers(served: ServedModel, requests: Sequence[Request], progress: Progress) -> list[Sample]:
    places = asyncio.Semaphore(served.concurrency)
    limits = httpx.Limits(max_connections=served.concurrency)
    with progress.task(f"ask {served.mode}", len(requests), unit="answers") as task:
        async with httpx.AsyncClient(base_url=served.url, timeout=ANSWER_SECONDS, limits=limits) as http:
            asked = (_ask(http, places, served, request, place, task) for place, request in enumerate(requests))
            return list(await asyncio.gather(*asked))


async def _ask(
    http: httpx.AsyncClient, places: asyncio.Semaphore, served: ServedModel, request: Request, place: int, task: Task
) -> Sample:
    async with places:
        try:
            response = await http.post("/v1/chat/completions", json=_body(served, request, place))
        except httpx.TransportError as exc:
            raise ServerRefused(f"{served.url} did not answer: {exc}") from exc
    if response.status_code != httpx.codes.OK:
        raise ServerRefused(f"{served.url} answered {response.status_code}: {response.text[:500]}")
    task.advance()
    completion = response.json()
    choice = completion["choices"][0]
    return Sample(
        prompt_id=request.id,
        sample=0,
        answer=choice["message"]["content"].strip(),
        tokens=completion["usage"]["completion_tokens"],
        finished=choice["finish_reason"] == "stop",
        dials=request.dials,
    )


def _body(served: ServedModel, request: Request, place: int) -> dict[str, object]:
    control: dict[str, object] = {"mode": served.mode}
    if request.dials is not None:
        control |= {"safety": request.dials.safety, "helpfulness": request.dials.helpfulness}
    return {
        "model": served.model,
        "messages": list(request.messages),
        "temperature": served.temperature,
        "max_tokens": served.max_tokens,
        "seed": served.seed + place,
        "control": control,
    }
