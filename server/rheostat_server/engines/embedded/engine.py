"""The engine itself: OpenAI chat in, answers of the model in this process out."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from rheostat_server.engines import DONE, Completion, EngineRequest, Occupancy, Part, Streams
from rheostat_server.engines.embedded.answer import Chunks, Head, completion
from rheostat_server.engines.embedded.batch import Batch
from rheostat_server.engines.embedded.job import Job
from rheostat_server.engines.embedded.lanes import Lanes
from rheostat_server.engines.embedded.lora import Mix
from rheostat_server.engines.embedded.mailbox import Mailbox, Piece
from rheostat_server.engines.embedded.model import Model, load_model
from rheostat_server.engines.embedded.prompt import answer_limit, render_prompt
from rheostat_server.engines.embedded.request import ChatRequest, read_request
from rheostat_server.engines.embedded.worker import Worker
from rheostat_server.engines.separate import COUNTED, with_options
from rheostat_server.errors import EngineFailed, UnknownModel

MOST_BLENDS: Final = 1024
_LONG_TEXT: Final = 20_000
"""Characters from which a prompt is made in another thread, so that it does not hold the event loop."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """`mailbox` is where all candidates are told of, unless each has one of its own."""

    request: ChatRequest
    job: Job
    head: Head

    @property
    def mailbox(self) -> Mailbox:
        return self.job.mailboxes[0]


class EmbeddedEngine:
    """Serves one model and its adapters, in batches of at most `max_batch` answers: one of urgent requests and one of
    the others.
    """

    name = "embedded"
    takes_n = True
    urgent_first = True
    counts_as_it_goes = True

    def __init__(
        self,
        model: Model,
        *,
        served_name: str,
        adapters: Sequence[str] = (),
        components: Sequence[str] = (),
        max_batch: int = 64,
        threads: int | None = None,
    ) -> None:
        """`adapters`, then `components`, are the ids of those that `model` was loaded with, in their order."""
        self._model = model
        self._served_name = served_name
        self._installed = (*adapters, *components)
        self._mixes: dict[str, Mix] = {served_name: (), **{id: self._mix({id: 1.0}) for id in adapters}}
        self._max_batch = max_batch
        self._defaults = model.defaults()
        lanes = Lanes(urgent=Batch(model, max_rows=max_batch), others=Batch(model, max_rows=max_batch))
        self._worker = Worker(lanes, threads=threads)

    @classmethod
    def load(
        cls,
        model_folder: Path,
        *,
        served_name: str,
        adapters: Mapping[str, Path] | None = None,
        components: Mapping[str, Path] | None = None,
        max_batch: int = 64,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
    ) -> "EmbeddedEngine":
        """Loads model and adapters (id to PEFT folder), which takes seconds, and starts the worker.

        `components` are adapters too, which are asked for in blends alone.

        Raises:
            UnsupportedModel, AdapterUnusable: a folder holds what this engine cannot serve; both are `CannotStart`.
        """
        adapters, components = adapters or {}, components or {}
        folders = [*adapters.values(), *components.values()]
        model = load_model(model_folder, adapters=folders, device=device, dtype=dtype)
        return cls(
            model,
            served_name=served_name,
            adapters=list(adapters),
            components=list(components),
            max_batch=max_batch,
            threads=threads,
        )

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self._worker.running

    @property
    def waiting(self) -> int:
        """Requests that wait for a place in the batch."""
        return self._worker.waiting

    def models(self) -> Sequence[str]:
        return [self._served_name]

    async def check_ready(self) -> None:
        self._worker.check()

    async def complete(self, request: EngineRequest) -> Completion:
        asked = await self._ask(request, streamed=False)
        pieces: list[Piece] = []
        with self._in_batch(asked.job):
            while len(pieces) < asked.job.candidates:
                pieces += await asked.mailbox.collect()
        return completion(asked.head, pieces, tokenizer=self._tokenizer, logprobs=asked.request.logprobs)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        asked = await self._ask(request, streamed=True)
        chunks = Chunks(asked.head, self._tokenizer, asked.request)
        left = asked.job.candidates
        with self._in_batch(asked.job):
            pieces = await asked.mailbox.collect()
            yield chunks.opening()
            while True:
                yield b"".join(map(chunks.grown, pieces))
                left -= sum(piece.finish_reason is not None for piece in pieces)
                if not left:
                    break
                pieces = await asked.mailbox.collect()
        if ending := chunks.ending():
            yield ending
        yield DONE

    @asynccontextmanager
    async def fan_out(self, request: EngineRequest, n: int) -> AsyncGenerator[Streams, None]:
        """The prompt is read once, by one job of `n` candidates with a mailbox each."""
        body = {**request.body, "n": n, "stream": True, "stream_options": with_options(request.body, COUNTED)}
        asked = await self._ask(replace(request, body=body), streamed=True, apart=True)
        self._worker.add(asked.job)
        try:
            yield [self._candidate(asked, number) for number in range(n)]
        finally:
            self._worker.drop(asked.job)

    @property
    def blend_room(self) -> int:
        """A blend is a row of weights: its adapters are there from the start."""
        return MOST_BLENDS

    async def load_blend(self, address: str, parts: Sequence[Part]) -> None:
        if strange := [part.id for part in parts if part.id not in self._installed]:
            raise EngineFailed(f"the engine was started without {strange[0]}, which {address} needs")
        self._mixes[address] = self._mix({part.id: part.weight for part in parts})

    async def unload_blend(self, address: str) -> None:
        self._mixes.pop(address, None)

    def _mix(self, weights: Mapping[str, float]) -> Mix:
        return tuple(weights.get(id, 0.0) for id in self._installed)

    async def occupancy(self) -> Occupancy:
        asked, most = self._worker.sequences, self._max_batch
        return Occupancy(running=min(asked, most), waiting=max(0, asked - most), room=most)

    async def _candidate(self, asked: _Asked, number: int) -> AsyncGenerator[bytes, None]:
        """One candidate's stream, of which it is choice 0."""
        chunks = Chunks(asked.head, self._tokenizer, asked.request.model_copy(update={"n": 1}))
        mailbox = asked.job.mailboxes[number]
        ended = False
        try:
            yield chunks.opening()
            while not ended:
                pieces = [replace(piece, candidate=0) for piece in await mailbox.collect()]
                ended = pieces[-1].finish_reason is not None
                yield b"".join(map(chunks.grown, pieces))
        finally:
            if not ended:
                self._worker.drop(asked.job, number)
        yield chunks.ending()
        yield DONE

    async def close(self) -> None:
        await asyncio.to_thread(self._worker.stop)

    @property
    def _tokenizer(self) -> Tokenizer:
        return self._model.text

    async def _ask(self, request: EngineRequest, *, streamed: bool, apart: bool = False) -> _Asked:
        """Everything that can be at fault with a request is found here, before it reaches the batch.

        `apart` is for candidates that are told of in mailboxes of their own.
        """
        self._worker.check()
        chat = read_request(
            request.body,
            defaults=self._defaults,
            vocabulary=self._model.vocabulary,
            max_candidates=self._max_batch,
        )
        if chat.model not in self._mixes:
            raise UnknownModel(chat.model, self._mixes)
        prompt = await self._prompt(chat)
        mailboxes = [Mailbox() for _ in range(chat.n)] if apart else [Mailbox()] * chat.n
        job = self._job(chat, prompt, streamed=streamed, mailboxes=mailboxes, urgent=request.urgent)
        return _Asked(chat, job, Head(request.request_id, model=chat.model, prompt_tokens=len(prompt)))

    async def _prompt(self, chat: ChatRequest) -> list[int]:
        if sum(len(message.content) for message in chat.messages) < _LONG_TEXT:
            return render_prompt(self._model.tokenizer, chat.messages)
        return await asyncio.to_thread(render_prompt, self._model.tokenizer, chat.messages)

    def _job(
        self, chat: ChatRequest, prompt: Sequence[int], *, streamed: bool, mailboxes: Sequence[Mailbox], urgent: bool
    ) -> Job:
        model_stops = self._model.stop_ids
        return Job(
            prompt=prompt,
            candidates=chat.n,
            mix=self._mixes[chat.model],
            sampling=chat.sampling,
            seed=chat.seed,
            max_tokens=answer_limit(prompt, chat.token_limit, at_least=chat.min_tokens, context=self._model.context),
            min_tokens=chat.min_tokens,
            stop_ids=frozenset(chat.stop_token_ids) | (frozenset() if chat.ignore_eos else model_stops),
            barred_at_first=frozenset(chat.stop_token_ids) | model_stops,
            stop_texts=chat.stop,
            top_logprobs=chat.top_logprobs if chat.logprobs else None,
            streamed=streamed,
            mailboxes=mailboxes,
            urgent=urgent,
        )

    @contextmanager
    def _in_batch(self, job: Job) -> Generator[None, None, None]:
        """Runs the job; whoever leaves before its end, by cancelling or closing, takes it out."""
        self._worker.add(job)
        try:
            yield
        except BaseException:
            self._worker.drop(job)
            raise
