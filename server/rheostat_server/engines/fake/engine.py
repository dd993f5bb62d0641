"""The fake Engine: deterministic, keeps what it was asked, and is slow, fails or dies when told to."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import orjson

from rheostat_server.engines import DONE, Completion, EngineRequest, Occupancy, Part, Streams
from rheostat_server.engines.fake.candidate import Candidate, draw, logprobs
from rheostat_server.engines.fake.orders import Orders
from rheostat_server.engines.fake.request import FakeRequest, read_request
from rheostat_server.engines.separate import COUNTED, separate_streams
from rheostat_server.errors import ContextOverflow, EngineFailed, EngineUnavailable, UnknownModel
from rheostat_server.sse import event

CREATED: Final = 1_700_000_000


@dataclass(slots=True)
class FakeEngine:
    """`words` is the length of an answer that nothing cuts short; `context` that of prompt and answer together."""

    served: Sequence[str] = ("fake",)
    adapters: Sequence[str] = ()
    words: int = 16
    context: int = 512
    room: int = 64
    orders: Orders = field(default_factory=Orders)
    asked: list[EngineRequest] = field(default_factory=list)
    running: int = 0
    dead: bool = False
    name: str = "fake"
    takes_n: bool = True
    counts_as_it_goes: bool = True
    urgent_first: bool = False
    blend_room: int = 0
    blends: dict[str, Sequence[Part]] = field(default_factory=dict)
    _draws: Iterator[int] = field(default_factory=count)

    def models(self) -> Sequence[str]:
        return self.served

    async def check_ready(self) -> None:
        if self.dead:
            raise EngineUnavailable("the fake engine is dead, as it was told to be")

    async def complete(self, request: EngineRequest) -> Completion:
        with self._counted(request) as asked:
            candidates = await self._candidates(asked)
            for _ in range(max(len(candidate.pieces) for candidate in candidates)):
                await self._one_token()
            if self.orders.fail_after is not None:
                raise self.orders.failure()
            choices = [_choice(index, candidate, asked) for index, candidate in enumerate(candidates)]
            return {**_head(request, "chat.completion"), "choices": choices, "usage": _usage(asked, candidates)}

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        with self._counted(request) as asked:
            candidates = await self._candidates(asked)
            head = _head(request, "chat.completion.chunk")
            told = 0
            async with aclosing(self._chunks(asked, candidates)) as chunks:
                async for chunk in chunks:
                    if told == self.orders.fail_after:
                        raise self.orders.failure()
                    yield event({**head, **chunk})
                    told += 1
            yield DONE

    def fan_out(self, request: EngineRequest, n: int) -> AbstractAsyncContextManager[Streams]:
        return separate_streams(self, request, n, COUNTED)

    async def load_blend(self, address: str, parts: Sequence[Part]) -> None:
        await self._blend_told()
        if len(self.blends) >= self.blend_room:
            raise EngineFailed(f"the fake engine has room for {self.blend_room} blends")
        self.blends[address] = parts

    async def unload_blend(self, address: str) -> None:
        await self._blend_told()
        self.blends.pop(address, None)

    async def _blend_told(self) -> None:
        await self.check_ready()
        await asyncio.sleep(self.orders.seconds_per_load)
        if self.orders.fails_to_load:
            raise EngineFailed("the fake engine loads no blend, as it was told to")

    async def occupancy(self) -> Occupancy:
        return Occupancy(running=min(self.running, self.room), waiting=max(0, self.running - self.room), room=self.room)

    async def close(self) -> None:
        self.dead = True

    async def _candidates(self, asked: FakeRequest) -> list[Candidate]:
        await self.check_ready()
        known = [*self.served, *self.adapters, *self.blends]
        if asked.model not in known:
            raise UnknownModel(asked.model, known)
        room = self.context - asked.prompt_tokens
        if room < (asked.token_limit or 1):
            raise ContextOverflow(
                f"the prompt has {asked.prompt_tokens} tokens and the answer may have {asked.token_limit or 1}; "
                f"the context holds {self.context}",
                param="messages",
            )
        limit = asked.token_limit or room
        words = limit + 1 if asked.ignore_eos else self.words
        return [draw(key, words=words, limit=limit, stop=asked.stop) for key in self._keys(asked)]

    def _keys(self, asked: FakeRequest) -> list[str]:
        """What decides each candidate: at temperature 0 model and messages, else a seed too, ascending."""
        base = f"{asked.model}\0{orjson.dumps(asked.messages).decode()}"
        if asked.temperature == 0:
            return [base] * asked.n
        seeds = [f"draw {next(self._draws)}" for _ in range(asked.n)]
        if asked.seed is not None:
            seeds = [f"seed {asked.seed + index}" for index in range(asked.n)]
        return [f"{base}\0{seed}" for seed in seeds]

    async def _chunks(
        self, asked: FakeRequest, candidates: Sequence[Candidate]
    ) -> AsyncGenerator[dict[str, Any], None]:
        for index in range(asked.n):
            yield {"choices": [_delta(index, {"role": "assistant", "content": ""})]}
        for position in range(max(len(candidate.pieces) for candidate in candidates)):
            await self._one_token()
            for index, candidate in enumerate(candidates):
                if pieces := candidate.pieces[position : position + 1]:
                    likely = logprobs(pieces, top=asked.top_logprobs) if asked.logprobs else None
                    delta = _delta(index, {"content": pieces[0]}, likely)
                    yield {"choices": [delta], **_running_usage(asked, candidates, position + 1)}
        for index, candidate in enumerate(candidates):
            yield {"choices": [{**_delta(index, {}), "finish_reason": candidate.finish_reason}]}
        if asked.stream_options.include_usage:
            yield {"choices": [], "usage": _usage(asked, candidates)}

    async def _one_token(self) -> None:
        await asyncio.sleep(self.orders.seconds_per_token)
        await self.check_ready()

    @contextmanager
    def _counted(self, request: EngineRequest) -> Generator[FakeRequest, None, None]:
        self.asked.append(request)
        self.running += 1
        try:
            yield read_request(request.body)
        finally:
            self.running -= 1


def _head(request: EngineRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request.request_id}",
        "object": kind,
        "created": CREATED,
        "model": request.body["model"],
    }


def _choice(index: int, candidate: Candidate, asked: FakeRequest) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": candidate.text},
        "logprobs": logprobs(candidate.pieces, top=asked.top_logprobs) if asked.logprobs else None,
        "finish_reason": candidate.finish_reason,
    }


def _delta(index: int, delta: dict[str, str], likely: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": likely, "finish_reason": None}


def _running_usage(asked: FakeRequest, candidates: Sequence[Candidate], told: int) -> dict[str, Any]:
    """The usage so far, where each chunk is to tell it."""
    if not asked.stream_options.continuous_usage_stats:
        return {}
    cut = [Candidate(candidate.pieces[:told], candidate.finish_reason) for candidate in candidates]
    return {"usage": _usage(asked, cut)}


def _usage(asked: FakeRequest, candidates: Sequence[Candidate]) -> dict[str, int]:
    answered = sum(len(candidate.pieces) for candidate in candidates)
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": answered,
        "total_tokens": asked.prompt_tokens + answered,
    }
