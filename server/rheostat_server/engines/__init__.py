"""Engines speak plain OpenAI chat: messages in, choices out. They know nothing of dials."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from rheostat_server.tracing import Span

DONE: Final = b"data: [DONE]\n\n"

ChatBody = Mapping[str, Any]
Completion = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One chat completion for an engine.

    `body` is OpenAI's request without our `control`; its `model` is the engine's base model, or the `name@digest` of an
    adapter or of a blend that is loaded. `headers` are the caller's, lower-case, less `authorization` and what belongs
    to one hop. One that is `urgent` came while there was no room, from a caller that used little of late.
    """

    body: ChatBody
    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    urgent: bool = False

    def within(self, span: Span) -> "EngineRequest":
        """The request by which the engine goes on with the span's trace."""
        headers = span.carried(self.headers)
        return self if headers is self.headers else replace(self, headers=headers)


Streams = Sequence[AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Sequences in an engine: those that run, those that wait for a place, and how many it runs at once."""

    running: int
    waiting: int
    room: int


@dataclass(frozen=True, slots=True)
class Part:
    """One of the LoRA adapters of a blend: its PEFT folder, which does not change, and the weight of its change."""

    id: str
    folder: Path
    weight: float


class Engine(Protocol):
    """Runs chat completions.

    Both calls raise `errors.EngineRejected` (or another `BadRequest`, `NotFound`) for a request at fault,
    `EngineUnavailable` when the engine is gone, `EngineFailed` for an answer that is none. Cancelling the task that
    awaits `complete`, or closing the generator of `stream`, frees all the request's candidates in the engine.
    `takes_n` says that `complete` gives as many choices as `n` asks for, and `counts_as_it_goes` that each event of
    a stream tells the tokens so far where `stream_options.continuous_usage_stats` asks for it. With `urgent_first`
    others stand still while an urgent request runs.
    """

    name: str

    @property
    def takes_n(self) -> bool: ...

    @property
    def counts_as_it_goes(self) -> bool: ...

    @property
    def urgent_first(self) -> bool: ...

    def models(self) -> Sequence[str]:
        """The base model's names, the first one the canonical one. Adapters are not listed."""
        ...

    async def check_ready(self) -> None:
        """Returns if the engine can answer now; raises `EngineUnavailable` with the reason if it cannot."""
        ...

    async def complete(self, request: EngineRequest) -> Completion:
        """The whole answer: OpenAI's `chat.completion` object."""
        ...

    def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        """Server-sent events as bytes, passed on unread; the last event is `DONE`.

        An error before the first event is raised at the first `__anext__`; a later one is raised in its place.
        """
        ...

    def fan_out(self, request: EngineRequest, n: int) -> AbstractAsyncContextManager[Streams]:
        """`n` answers to one request, each a stream as `stream` gives it, as choice 0; they share one prefill.

        With a seed, stream i is choice i of `complete` with `n`. Each event's `usage` counts the tokens so far where
        the engine can count them. Closing a stream frees its answer alone, leaving the context all of them; what reads
        a stream must have stopped before.
        """
        ...

    @property
    def blend_room(self) -> int:
        """How many blends may be loaded at once; 0 where the engine loads none."""
        ...

    async def load_blend(self, address: str, parts: Sequence[Part]) -> None:
        """From now on `model` may be `address`: the base model with the weighted sum of the parts' changes.

        Whoever calls keeps to `blend_room`, and calls once at a time. Raises `EngineFailed` or `EngineUnavailable`; the
        address is then not loaded.
        """
        ...

    async def unload_blend(self, address: str) -> None:
        """Makes room; no request asks for the address any more. An address that is not loaded is none to unload."""
        ...

    async def occupancy(self) -> Occupancy | None:
        """How full the engine is now; None where it does not tell."""
        ...

    async def close(self) -> None:
        """Frees what the engine holds; a second call does nothing."""
        ...
