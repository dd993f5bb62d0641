"""What all reranked requests of a server share: its scorers, how many are under way, and how long answers are."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from rheostat_server.engines import Engine, Occupancy
from rheostat_server.scorers import Message
from rheostat_server.scorers.panel import Judgement, Panel
from rheostat_server.tracing import Span

_FIRST_GUESS: Final = 256.0
_LATEST_SHARE: Final = 0.05


@dataclass(slots=True)
class Track:
    """`requests` are under way; `mean_tokens` is the running mean of finished answers' lengths.

    The number of candidates follows the engine's load if `follows_load`; the engine counts as full at `room` sequences,
    where that is given.
    """

    panel: Panel
    follows_load: bool = True
    room: int | None = None
    requests: int = 0
    mean_tokens: float | None = None

    @contextmanager
    def taken(self) -> Generator[None, None, None]:
        """Counts a request for as long as it runs."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    async def judge(
        self, span: Span, messages: Sequence[Message], answers: Sequence[str], *, by_all: bool = False
    ) -> Judgement:
        """What the panel says, in a span of its own within that one."""
        with span.child("judge", {"rheostat.answers": len(answers)}) as judging:
            judging.note({"rheostat.scorers": [card.name for card in self.panel.cards]})
            found = await self.panel.judge(messages, answers, by_all=by_all)
            judging.note({"rheostat.left_out": sorted(found.left_out)})
        return found

    async def occupancy_of(self, engine: Engine) -> Occupancy | None:
        """How full the engine is, as far as requests are to heed it."""
        found = await engine.occupancy() if self.follows_load else None
        if found is None or self.room is None:
            return found
        return replace(found, room=self.room, waiting=max(found.waiting, found.running - self.room))

    def expected_tokens(self, most: object) -> float:
        """How long an answer will be, as far as is known; never longer than the request allows."""
        expected = _FIRST_GUESS if self.mean_tokens is None else self.mean_tokens
        return min(expected, most) if isinstance(most, int) and most > 0 else expected

    def learn(self, tokens: int) -> None:
        """Takes in the length of an answer that ended of itself."""
        before = tokens if self.mean_tokens is None else self.mean_tokens
        self.mean_tokens = before + _LATEST_SHARE * (tokens - before)
