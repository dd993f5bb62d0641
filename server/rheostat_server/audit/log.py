"""The audit log of one process: takes records in order, and tells when each is on the file."""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, Final

import orjson
import structlog

from rheostat_server.audit.file import AuditFile, Rotation
from rheostat_server.audit.health import AuditUnavailable, Cause, Health, cause_of

log = structlog.get_logger(__name__)

SECONDS_BETWEEN_PROBES: Final = 1.0
LEAST_PROBE: Final = 4096
"""Bytes: a block of most disks, for the rest of the file's last block takes a few bytes on a full disk too."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A line that waits, and why it was not written."""

    line: bytes
    failure: Cause | None = None


class AuditLog:
    """One line of JSON a record, in the order of the calls; those that wait are written together, in their own thread.

    While the log cannot be written, `fail_closed` refuses requests; otherwise their records are lost and counted.
    A caller that is cancelled leaves its record to be written. Made in the process that uses it, after any fork.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, backups: int, fail_closed: bool, sync: bool = False,
        most_waiting: int = 10_000, patience: float = 5.0,
    ) -> None:  # fmt: skip
        """`max_bytes` and `backups` as in `Rotation`, `sync` as in `AuditFile`.

        Where the disk hangs, at most `most_waiting` records wait, and a caller waits at most `patience` seconds; its
        record then still waits, and is lost only if the disk fails.

        Raises:
            ValueError: one of the numbers cannot be meant.
        """
        for name, value in (("most_waiting", most_waiting), ("patience", patience)):
            if not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        self._file = AuditFile(path, Rotation(max_bytes, backups), sync=sync)
        self._health = Health(path)
        self._fail_closed = fail_closed
        self._most_waiting = most_waiting
        self._patience = patience
        self._waiting: deque[_Entry] = deque()
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._next_probe = -inf
        self._probe_bytes = LEAST_PROBE
        self._expected = 0
        self._one_less = asyncio.Event()
        self._closed = False

    @contextmanager
    def expecting(self) -> Generator[None, None, None]:
        """A request that will leave a record: the log does not close before it, if it ends soon."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            self._one_less.set()

    async def write(self, record: Mapping[str, Any]) -> None:
        """Returns when the record is on the file; where it fails closed, only then.

        Raises:
            AuditUnavailable: the record is not on the file, and the log fails closed.
        """
        try:
            await self._written(record)
        except AuditUnavailable:
            if self._fail_closed:
                raise

    async def check(self) -> None:
        """Before a request's work: tries, at most once a second, whether a log that failed works again.

        Raises:
            AuditUnavailable: it does not, and the log fails closed.
        """
        if not self._fail_closed:
            return
        if self._closed:
            raise AuditUnavailable("closed")
        if self._health.failure is not None and self._may_probe():
            self._next_probe = inf
            await self._in_thread(self._probe)
        if (cause := self._health.failure) is not None:
            raise AuditUnavailable(cause)

    async def close(self) -> None:
        """Writes what is expected and what waits, unless it takes longer than a caller waits.

        A record that comes still later is lost; one that waits still is left to the thread.
        """
        await self._all_expected()
        if self._closed:
            return
        self._closed = True
        try:
            await self._in_thread(self._file.close)
        except AuditUnavailable:
            log.error("audit log closes with records that wait", records=len(self._waiting))
        self._thread.shutdown(wait=False)

    async def _all_expected(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while self._expected:
                    self._one_less.clear()
                    await self._one_less.wait()
        except TimeoutError:
            log.error("audit log closes before requests that are open", requests=self._expected)

    async def _written(self, record: Mapping[str, Any]) -> None:
        entry = self._take(self._line(record))
        await self._in_thread(self._write_waiting)
        if entry.failure is not None:
            raise AuditUnavailable(entry.failure)

    def _line(self, record: Mapping[str, Any]) -> bytes:
        try:
            return orjson.dumps(dict(record), option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError as exc:
            self._health.unwritable(str(exc))
            raise AuditUnavailable("not_json") from exc

    def _take(self, line: bytes) -> _Entry:
        if self._closed:
            raise self._refused("closed", "a record was written after the audit log was closed")
        entry = _Entry(line)
        with self._lock:
            if len(self._waiting) < self._most_waiting:
                self._waiting.append(entry)
                return entry
        raise self._refused("queue_full", f"{self._most_waiting} records wait, and no more may")

    def _refused(self, cause: Cause, reason: str) -> AuditUnavailable:
        self._health.failed(cause, reason, lost=1)
        return AuditUnavailable(cause)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """A caller that is cancelled, or whose patience ends, leaves the work to be done."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(running)
        except TimeoutError:
            self._health.failed("slow", f"nothing was written within {self._patience:g} s")
            raise AuditUnavailable("slow") from None

    def _may_probe(self) -> bool:
        """Not while a record waits: its own write will tell."""
        return not self._waiting and monotonic() >= self._next_probe

    def _probe(self) -> None:
        """In the thread."""
        try:
            self._file.probe(self._probe_bytes)
        except OSError as exc:
            self._health.failed(cause_of(exc), str(exc))
        else:
            self._health.worked()
        self._next_probe = monotonic() + SECONDS_BETWEEN_PROBES

    def _write_waiting(self) -> None:
        """In the thread, once for each record; the first call writes all that wait, and the others find nothing."""
        with self._lock:
            left = list(self._waiting)
        while left:
            try:
                count = self._file.append([entry.line for entry in left])
            except OSError as exc:
                self._lose(left, exc)
                return
            self._done(count)
            self._health.worked(count)
            left = left[count:]

    def _lose(self, entries: list[_Entry], exc: OSError) -> None:
        for entry in entries:
            entry.failure = cause_of(exc)
        self._probe_bytes = max(LEAST_PROBE, len(entries[0].line))
        self._health.failed(cause_of(exc), str(exc), lost=len(entries))
        self._done(len(entries))

    def _done(self, count: int) -> None:
        with self._lock:
            for _ in range(count):
                self._waiting.popleft()
