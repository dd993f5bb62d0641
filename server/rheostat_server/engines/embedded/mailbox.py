"""How the worker's news reach the event loop of whoever asked: once a step, all together."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from rheostat_server.errors import RheostatError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token of an answer with its log-probability, and the likeliest ones in its place."""

    token: int
    logprob: float
    top: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Piece:
    """What a candidate's answer grew by; `tokens` is their number."""

    candidate: int
    text: str
    tokens: int
    scores: Sequence[TokenScore] = ()
    finish_reason: FinishReason | None = None


News: TypeAlias = Piece | RheostatError


@dataclass(frozen=True, slots=True, eq=False)
class Mailbox:
    """Belongs to the event loop in which it was made."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    queue: asyncio.Queue[News] = field(default_factory=asyncio.Queue)

    async def collect(self) -> list[Piece]:
        """All that has come, after waiting for something to come; raises the error that came, if one did."""
        news = [await self.queue.get()]
        while not self.queue.empty():
            news.append(self.queue.get_nowait())
        return [_piece(item) for item in news]


Letter: TypeAlias = tuple[Mailbox, News]


def deliver(letters: Iterable[Letter]) -> None:
    """Puts letters into their mailboxes, from any thread; those of a loop that has ended are lost."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Letter]] = defaultdict(list)
    for letter in letters:
        by_loop[letter[0].loop].append(letter)
    for loop, its_letters in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put, its_letters)
        except RuntimeError:
            if not loop.is_closed():
                raise


def _piece(news: News) -> Piece:
    if isinstance(news, RheostatError):
        raise news
    return news


def _put(letters: Iterable[Letter]) -> None:
    for mailbox, news in letters:
        mailbox.queue.put_nowait(news)
