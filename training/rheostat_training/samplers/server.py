"""Any OpenAI-compatible server. Of a Rheostat server it asks for dials, so that what is measured is what is served."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from rheostat_training.conditioning import CONTROL_TEXT
from rheostat_training.generate import SamplingPlan, consecutive
from rheostat_training.progress import Progress, Task
from rheostat_training.rows import Request, Sample

ANSWER_SECONDS: Final = 600.0
TRIES: Final = 6
PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of a server that may answer when it is asked again."""
BACKOFF: Final = wait_random_exponential(multiplier=1, max=60)


class ServerRefused(RuntimeError):
    """The server did not answer, or with an error; the message names it and holds the status and its own words."""


class _NotNow(ServerRefused):
    """The same request may be answered later: after so many seconds where the server says it."""

    def __init__(self, told: str, after: float | None = None) -> None:
        super().__init__(told)
        self.after = after


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return error.after if isinstance(error, _NotNow) and error.after is not None else BACKOFF(state)


@dataclass(frozen=True, slots=True)
class ServerSampler:
    """Asks `url`, with or without the `/v1` at its end, for `model`; see `generate.Sampler`.

    `mode` is a mode of a Rheostat server, which then gets a request's dials as `control`, and `candidates` where it is
    to choose among so many. Without it the server is any
    other, and dials are written as control text, for an adapter that it serves. `key` is sent as a bearer token. What a
    server cannot answer now it is asked again, `TRIES` times in all, ever later or when its `Retry-After` says.
    """

    url: str
    model: str
    mode: str | None = None
    concurrency: int = 64
    logprobs: bool = False
    key: str | None = None
    candidates: int | None = None

    def __post_init__(self) -> None:
        try:
            httpx.URL(self.url)
        except httpx.InvalidURL as exc:
            raise ServerRefused(f"{self.url} is no address: {exc}") from exc

    @property
    def address(self) -> str:
        """`url` as it may be shown: without a name and a password."""
        return str(httpx.URL(self.url).copy_with(username=None, password=None))

    def identity(self) -> str:
        among = "" if self.candidates is None else f", {self.candidates} candidates"
        return f"{self.model} at {self.address}, mode {self.mode}{among}"

    def batches(self, requests: Sequence[Request], plan: SamplingPlan) -> list[range]:
        return consecutive(requests, plan)

    def answer(self, requests: Sequence[Request], plan: SamplingPlan, number: int) -> list[Sample]:
        return asyncio.run(self._all(requests, plan, plan.seed * 1_000_003 + number * plan.batch_rows, None))

    def sample(
        self, requests: Sequence[Request], plan: SamplingPlan, *, progress: Progress | None = None
    ) -> list[Sample]:
        """Samples in memory, in the order of the requests; request i is asked with the seed `plan.seed + i`.

        Raises:
            ServerRefused: any request was not answered; none is left out in silence.
        """
        with (progress or Progress.auto()).task(f"ask {self.model}", len(requests), unit="answers") as task:
            return asyncio.run(self._all(requests, plan, plan.seed, task))

    async def _all(
        self, requests: Sequence[Request], plan: SamplingPlan, first_seed: int, task: Task | None
    ) -> list[Sample]:
        places = asyncio.Semaphore(self.concurrency)
        limits = httpx.Limits(max_connections=self.concurrency)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}

        root = self.url.rstrip("/").removesuffix("/v1")
        async with httpx.AsyncClient(base_url=root, timeout=ANSWER_SECONDS, limits=limits, headers=headers) as http:

            async def one(request: Request, seed: int) -> list[Sample]:
                async with places:
                    found = await self._ask(http, request, plan, seed)
                if task:
                    task.advance()
                return found

            asked = (one(request, first_seed + place) for place, request in enumerate(requests))
            return [sample for found in await asyncio.gather(*asked) for sample in found]

    async def _ask(self, http: httpx.AsyncClient, request: Request, plan: SamplingPlan, seed: int) -> list[Sample]:
        response = await self._post(http, self._body(request, plan, seed))
        try:
            completion = response.json()
            self._check_control(completion.get("control"))
            samples = [_sample(request, choice, completion, plan) for choice in completion["choices"]]
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ServerRefused(f"{self.address} answered what is no chat completion: {response.text[:200]}") from exc
        if len(samples) != plan.samples:
            raise ServerRefused(f"{self.address} gave {len(samples)} of {plan.samples} choices; it must take n")
        return samples

    @retry(retry=retry_if_exception_type(_NotNow), wait=_wait, stop=stop_after_attempt(TRIES), reraise=True)
    async def _post(self, http: httpx.AsyncClient, body: dict[str, object]) -> httpx.Response:
        try:
            response = await http.post("/v1/chat/completions", json=body)
        except (httpx.TimeoutException, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as exc:
            raise _NotNow(f"{self.address} did not answer: {exc or type(exc).__name__}") from exc
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            raise ServerRefused(f"{self.address} did not answer: {exc or type(exc).__name__}") from exc
        if response.status_code != httpx.codes.OK:
            told = f"{self.address} answered {response.status_code}: {response.text[:500]}"
            if response.status_code in PASSING:
                raise _NotNow(told, _seconds(response.headers.get("Retry-After")))
            raise ServerRefused(told)
        return response

    def _check_control(self, receipt: Any) -> None:
        """An answer under dials that nobody asked for is not the model's own."""
        if self.mode is None and receipt and receipt["mode"] != "off":
            raise ServerRefused(
                f"{self.address} is a Rheostat server, and answered in mode {receipt['mode']!r} at its callers' dials; "
                "give the address of the engine behind it"
            )

    def _body(self, request: Request, plan: SamplingPlan, seed: int) -> dict[str, object]:
        body: dict[str, object] = {
            "model": self.model,
            "messages": list(request.messages),
            "n": plan.samples,
            "temperature": plan.temperature,
            "top_p": plan.top_p,
            "max_tokens": plan.max_new_tokens,
            "seed": seed,
        }
        if self.logprobs:
            body["logprobs"] = True
        if self.mode is not None:
            control: dict[str, object] = {"mode": self.mode}
            if self.candidates is not None:
                control["candidates"] = self.candidates
            if request.dials is not None:
                control |= {"safety": request.dials.safety, "helpfulness": request.dials.helpfulness}
            body["control"] = control
        elif request.written_dials is not None:
            body["messages"] = CONTROL_TEXT.apply(request.messages, request.written_dials)
        return body


def _seconds(retry_after: str | None) -> float | None:
    """What the header says, a number of seconds or a date, as seconds from now; None where it says neither."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return min(float(retry_after), ANSWER_SECONDS)
    try:
        wait = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return None
    return min(max(wait, 0.0), ANSWER_SECONDS)


def _sample(request: Request, choice: Any, completion: Any, plan: SamplingPlan) -> Sample:
    """A choice of a completion; its tokens are counted from the log probabilities, else shared out of the usage."""
    logs = [entry["logprob"] for entry in (choice.get("logprobs") or {}).get("content") or ()]
    used = completion.get("usage", {}).get("completion_tokens", 0)
    settled = logs[plan.settling_tokens :]
    return Sample(
        prompt_id=request.id,
        sample=choice["index"],
        answer=(choice["message"]["content"] or "").strip(),
        tokens=len(logs) or used // len(completion["choices"]),
        finished=choice["finish_reason"] == "stop",
        dials=request.dials,
        least=(math.exp(min(settled)) if settled else 1.0) if logs else None,
    )
