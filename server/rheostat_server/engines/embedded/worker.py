"""The one thread that runs the model: takes jobs in, steps the batch, sends news out."""

import logging
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, TypeAlias

from rheostat_server.engines.embedded.job import Job
from rheostat_server.engines.embedded.lanes import Lanes
from rheostat_server.engines.embedded.mailbox import deliver
from rheostat_server.errors import EngineUnavailable
from rheostat_server.log import trace_of
from rheostat_server.own_threads import use_own_threads

_JOIN_SECONDS: Final = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Add:
    job: Job


@dataclass(frozen=True, slots=True)
class Drop:
    """Forgets a job, or one of its candidates."""

    job: Job
    candidate: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    pass


Command: TypeAlias = Add | Drop | Stop


@dataclass(frozen=True, slots=True)
class Load:
    """The batch as it was after a step: requests in it, those that wait for a place, and all that ever came.

    `sequences` are the answers of all of them that have not ended, `came_sequences` those that ever came.
    """

    running: int = 0
    sequences: int = 0
    waiting: int = 0
    came: int = 0
    came_sequences: int = 0


class Worker:
    """Once it has ended, by `stop` or by an error, every job gets `EngineUnavailable` with the reason."""

    def __init__(self, lanes: Lanes, *, threads: int | None) -> None:
        self._load = Load()
        self._sent = 0
        self._came = 0
        self._sent_sequences = 0
        self._came_sequences = 0
        self._lanes = lanes
        self._threads = threads
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._lock = threading.Lock()
        self._ended: str | None = None
        self._thread = threading.Thread(target=self._run, name="rheostat-embedded", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self._load.running

    @property
    def sequences(self) -> int:
        """Answers asked for that have not ended, those included that the thread has not seen yet."""
        load = self._load
        return load.sequences + self._sent_sequences - load.came_sequences

    @property
    def waiting(self) -> int:
        """Requests that wait for a place in the batch, or that the thread has not seen yet."""
        load = self._load
        return load.waiting + self._sent - load.came

    def check(self) -> None:
        """Raises `EngineUnavailable` if the worker has ended."""
        if self._ended is not None:
            raise EngineUnavailable(self._ended)

    def add(self, job: Job) -> None:
        with self._lock:
            self.check()
            self._sent += 1
            self._sent_sequences += job.candidates
            self._commands.put(Add(job))

    def drop(self, job: Job, candidate: int | None = None) -> None:
        self._commands.put(Drop(job, candidate))

    def stop(self) -> None:
        """Ends the thread after its current step, and waits for it."""
        self._commands.put(Stop())
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        try:
            if self._threads is not None:
                use_own_threads(self._threads)
            self._serve()
        except Exception as exc:  # noqa: BLE001 - a thread ends here
            _log.error("the embedded engine's worker died\n%s", trace_of(exc))
            self._end(f"The embedded engine has died of {type(exc).__name__}; the server's log says where.")
        else:
            self._end("The embedded engine is closed.")

    def _serve(self) -> None:
        while self._obey():
            letters = self._lanes.step()
            self._report()
            deliver(letters)

    def _obey(self) -> bool:
        """Carries out all commands, waiting for one while there is nothing to run; False when told to stop."""
        while not self._commands.empty() or not self._lanes.busy:
            match self._commands.get():
                case Add(job):
                    self._came += 1
                    self._came_sequences += job.candidates
                    self._lanes.add(job)
                case Drop(job, None):
                    self._lanes.drop(job)
                case Drop(job, int(candidate)):
                    self._lanes.drop_candidate(job, candidate)
                case Stop():
                    return False
            self._report()
        return True

    def _report(self) -> None:
        self._load = Load(
            running=self._lanes.running,
            sequences=self._lanes.sequences,
            waiting=self._lanes.waiting,
            came=self._came,
            came_sequences=self._came_sequences,
        )

    def _end(self, reason: str) -> None:
        with self._lock:
            self._ended = reason
        jobs = list(self._lanes.jobs)
        while not self._commands.empty():
            if isinstance(command := self._commands.get(), Add):
                jobs.append(command.job)
        self._load = Load(came=self._sent, came_sequences=self._sent_sequences)
        deliver((mailbox, EngineUnavailable(reason)) for job in jobs for mailbox in set(job.mailboxes))
