"""Makes a Scorer of a model in this process: dialogues of many requests are judged together, in a thread of its own."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

import structlog

from rheostat_server.errors import ScorerUnavailable
from rheostat_server.log import trace_of
from rheostat_server.scorers import Dialogue, LocalScorer, ScorerCard, Scores
from rheostat_server.scorers.telemetry import BATCH, FAILURES, QUEUED, SECONDS, count_judged

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Most dialogues in one batch and in the queue, and the seconds after which a dialogue is given up.

    Raises:
        ValueError: one of them is not above 0.
    """

    batch: int = 64
    queue: int = 1024
    deadline: float = 10.0

    def __post_init__(self) -> None:
        for name in ("batch", "queue", "deadline"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


@dataclass(slots=True, eq=False)
class _Call:
    """The dialogues of one call that are not judged yet, and what came of the others."""

    dialogues: Sequence[Dialogue]
    done: "asyncio.Future[list[Scores]]"
    begun: int = 0
    found: list[Scores] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.dialogues) - self.begun

    def last_begun(self, count: int) -> Sequence[Dialogue]:
        """The dialogues that the last batch took."""
        return self.dialogues[self.begun - count : self.begun]


class Batched:
    """A Scorer: what waits is judged in batches, first come first served, as soon as the thread is free.

    It belongs to the event loop of its first call. A call that is cancelled leaves the queue at once; a batch that is
    being judged then is finished and thrown away.
    """

    def __init__(self, local: LocalScorer, limits: Limits | None = None, *, threads: int | None = None) -> None:
        """`threads` are the processor threads that the model may use; left out, PyTorch's choice."""
        self._local = local
        self._limits = limits or Limits()
        self._waiting: deque[_Call] = deque()
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix=f"scorer {local.card.name}", initializer=partial(_use_threads, threads)
        )
        self._closed = False

    @property
    def card(self) -> ScorerCard:
        return self._local.card

    @property
    def queued(self) -> int:
        """Dialogues that no batch has taken yet."""
        return sum(call.left for call in self._waiting)

    @property
    def busy(self) -> bool:
        return self._running is not None

    async def score(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        if not dialogues:
            return []
        self._check_room(len(dialogues))
        call = _Call(dialogues, asyncio.get_running_loop().create_future())
        with self._queued(call):
            try:
                async with asyncio.timeout(self._limits.deadline):
                    return await call.done
            except TimeoutError:
                FAILURES.labels(self.card.name, "deadline").inc()
                raise ScorerUnavailable(
                    f"scorer {self.card.name!r} did not judge within its deadline of {self._limits.deadline:g} s"
                ) from None

    async def close(self) -> None:
        self._closed = True
        if self._running is not None:
            await asyncio.wait({self._running})
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _check_room(self, wanted: int) -> None:
        if self._closed:
            raise ScorerUnavailable(f"scorer {self.card.name!r} is closed")
        if self.queued + wanted > self._limits.queue:
            FAILURES.labels(self.card.name, "queue_full").inc()
            raise ScorerUnavailable(
                f"scorer {self.card.name!r} is asked for {wanted} judgements and {self.queued} wait already; its queue "
                f"holds {self._limits.queue}",
                headers={"Retry-After": "1"},
            )

    @contextmanager
    def _queued(self, call: _Call) -> Iterator[None]:
        self._waiting.append(call)
        QUEUED.labels(self.card.name).inc(call.left)
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())
        try:
            yield
        finally:
            self._leave(call)

    async def _run(self) -> None:
        """Judges batches until none waits."""
        try:
            while self._waiting and not self._closed:
                await self._batch(self._next_batch())
        finally:
            self._running = None
            for call in list(self._waiting):
                _fail(call, ScorerUnavailable(f"scorer {self.card.name!r} is closed"))

    def _next_batch(self) -> list[tuple[_Call, int]]:
        """Calls with the number of dialogues of each that the batch takes."""
        room = self._limits.batch
        shares: list[tuple[_Call, int]] = []
        while self._waiting and room:
            call = self._waiting[0]
            share = min(call.left, room)
            shares.append((call, share))
            room -= share
            call.begun += share
            if not call.left:
                self._waiting.popleft()
        QUEUED.labels(self.card.name).dec(self._limits.batch - room)
        return shares

    async def _batch(self, shares: Sequence[tuple[_Call, int]]) -> None:
        """Judges a batch; where that fails, each call's part alone, so that one conversation fails nobody else's."""
        try:
            scores = await self._judged([one for call, share in shares for one in call.last_begun(share)])
        except Exception as exc:  # noqa: BLE001 - a batch ends here, and whoever waits for it is told
            if len(shares) > 1:
                for each in shares:
                    await self._batch([each])
            else:
                self._give_up(shares[0][0], exc)
            return
        found = iter(scores)
        for call, share in shares:
            call.found += [next(found) for _ in range(share)]
            if len(call.found) == len(call.dialogues) and not call.done.done():
                call.done.set_result(call.found)

    async def _judged(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        BATCH.labels(self.card.name).observe(len(dialogues))
        started = monotonic()
        scores = await asyncio.get_running_loop().run_in_executor(self._thread, self._local.scores, dialogues)
        SECONDS.labels(self.card.name).observe(monotonic() - started)
        count_judged(self.card, scores)
        return scores

    def _give_up(self, call: _Call, exc: Exception) -> None:
        log.error("scorer failed", scorer=self.card.name, trace=trace_of(exc))
        FAILURES.labels(self.card.name, "error").inc()
        self._leave(call)
        _fail(call, ScorerUnavailable(f"scorer {self.card.name!r} failed: {type(exc).__name__}"))

    def _leave(self, call: _Call) -> None:
        """Takes what is left of a call out of the queue."""
        if call in self._waiting:
            self._waiting.remove(call)
            QUEUED.labels(self.card.name).dec(call.left)


def _use_threads(threads: int | None) -> None:
    """Of the thread that calls it; PyTorch is not needed where nothing is asked of it."""
    if threads is not None:
        from rheostat_server.own_threads import use_own_threads

        use_own_threads(threads)


def _fail(call: _Call, error: ScorerUnavailable) -> None:
    if not call.done.done():
        call.done.set_exception(error)
