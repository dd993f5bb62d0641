"""Two batches of one model: that of urgent jobs, and that of the others, which stands still meanwhile."""

import time
from collections.abc import Callable, Collection
from typing import Final

from rheostat_server.engines.embedded.batch import Batch
from rheostat_server.engines.embedded.job import Job
from rheostat_server.engines.embedded.mailbox import Letter

STILL_SECONDS: Final = 0.5
"""After so long the batches step in turn until no urgent job is left, so nobody stands still for good."""


class Lanes:
    """Belongs to one thread, as its batches do."""

    def __init__(self, urgent: Batch, others: Batch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._urgent, self._others = self._batches = urgent, others
        self._clock = clock
        self._still_since: float | None = None
        self._last = others

    @property
    def waiting(self) -> int:
        """Jobs that wait for a place in their batch."""
        return sum(batch.waiting for batch in self._batches)

    @property
    def running(self) -> int:
        """Jobs in a batch."""
        return sum(batch.running for batch in self._batches)

    @property
    def sequences(self) -> int:
        """Answers of the jobs that run or wait."""
        return sum(batch.sequences + batch.waiting_sequences for batch in self._batches)

    @property
    def busy(self) -> bool:
        return any(batch.busy for batch in self._batches)

    @property
    def jobs(self) -> Collection[Job]:
        return [job for batch in self._batches for job in batch.jobs]

    def add(self, job: Job) -> None:
        self._batch_of(job).add(job)

    def drop(self, job: Job) -> None:
        self._batch_of(job).drop(job)

    def drop_candidate(self, job: Job, candidate: int) -> None:
        self._batch_of(job).drop_candidate(job, candidate)

    def step(self) -> list[Letter]:
        """A step of the batch whose turn it is."""
        self._last = self._next()
        return self._last.step()

    def _next(self) -> Batch:
        if not (self._urgent.busy and self._others.busy):
            self._still_since = None
            return self._urgent if self._urgent.busy else self._others
        now = self._clock()
        if self._still_since is None:
            self._still_since = now
        in_turn = now - self._still_since >= STILL_SECONDS
        return self._others if in_turn and self._last is self._urgent else self._urgent

    def _batch_of(self, job: Job) -> Batch:
        return self._urgent if job.urgent else self._others
