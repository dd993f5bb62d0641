"""The audit file: whole lines, appended under a lock that all processes share; rotated by whoever would pass its size.

The lock is on the file itself, so it needs no second file. Whoever gets it looks whether the file still bears the
path's name, for another may have rotated, renamed or deleted it meanwhile, and if not begins anew with the one that
does. Only the holder of the lock on the file of that name rotates.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODE: Final = 0o600
# Read too, to see whether the last line is whole.
FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
MOST_AT_ONCE: Final = 2**20
"""Bytes of one write, that no process holds the lock for long; a longer line is written alone."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """A file that a line would take beyond `max_bytes` becomes FILE.1, and so on to FILE.`backups`, the last one kept.

    With 0 backups nothing is rotated: that is left to others, such as logrotate.
    """

    max_bytes: int
    backups: int

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes is {self.max_bytes}; it must be at least 1")
        if self.backups < 0:
            raise ValueError(f"backups is {self.backups}; it must be at least 0, where 0 never rotates")

    def is_due(self, size: int, line: int) -> bool:
        """Whether a line of so many bytes has no place in a file of that size; an empty file takes any line."""
        return self.backups > 0 and size > 0 and size + line > self.max_bytes


@dataclass(frozen=True, slots=True)
class _Held:
    """The open file, while its lock is ours; `size` is 0 for a device or a pipe, which is never rotated."""

    fd: int
    size: int
    is_regular: bool

    def has_half_a_line(self) -> bool:
        """Whether a process was ended while it wrote, or could not cut off what a full disk left of a line."""
        return self.size > 0 and os.pread(self.fd, 1, self.size - 1) != b"\n"


class AuditFile:
    """Belongs to one thread of one process: a process that is forked off needs its own. Nothing is opened until used.

    Raises, from every method: OSError, with nothing of the lines in question left on the file.
    """

    def __init__(self, path: Path, rotation: Rotation, *, sync: bool = False) -> None:
        """With `sync`, lines are on the disk when a call returns, not only with the kernel."""
        self._path = path
        self._rotation = rotation
        self._sync = sync
        self._fd: int | None = None

    def append(self, lines: Sequence[bytes]) -> int:
        """The number of lines, from the first on, that one write has put on the file: at least one.

        A line ends in a newline and holds no other. Fewer than all are written where the file or the disk is full.
        """
        with self._held(len(lines[0])) as held:
            size = held.size
            if held.has_half_a_line():
                size += os.write(held.fd, b"\n")
            data = b"".join(self._fitting(lines, size))
            return data.count(b"\n", 0, self._write(held.fd, size, data))

    def probe(self, size: int) -> None:
        """Writes a blank line of so many bytes and takes it off again. A device keeps a newline; readers skip it."""
        with self._held(size) as held:
            self._write(held.fd, held.size, (b" " * (size - 1) if held.is_regular else b"") + b"\n")
            if held.is_regular:
                _cut(held.fd, held.size)

    def close(self) -> None:
        """Gives the lock back too; a later call opens the file anew."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    @contextmanager
    def _held(self, wanted: int) -> Iterator[_Held]:
        """The file with room for a line of that size. After any failure it is opened anew."""
        try:
            held = self._lock(wanted)
            yield held
            fcntl.flock(held.fd, fcntl.LOCK_UN)
        except BaseException:
            self.close()
            raise

    def _lock(self, wanted: int) -> _Held:
        while True:
            fd = self._opened()
            fcntl.flock(fd, fcntl.LOCK_EX)
            if self._bears_the_name(fd):
                now = os.fstat(fd)
                is_regular = stat.S_ISREG(now.st_mode)
                if not (is_regular and self._rotation.is_due(now.st_size, wanted)):
                    return _Held(fd, now.st_size if is_regular else 0, is_regular)
                self._rotate()
            self.close()

    def _opened(self) -> int:
        if self._fd is None:
            self._fd = os.open(self._path, FLAGS, MODE)
            if self._sync:
                _sync_folder(self._path.parent)
        return self._fd

    def _bears_the_name(self, fd: int) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        """Moves files on as far as the first number that is free; beyond the last number they are gone."""
        numbers = range(1, self._rotation.backups + 1)
        free = next((number for number in numbers if not self._backup(number).exists()), numbers[-1])
        for number in range(free, 0, -1):
            self._backup(number - 1).replace(self._backup(number))

    def _backup(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _fitting(self, lines: Sequence[bytes], size: int) -> Iterator[bytes]:
        """The first line, for which there is room, and those after it as long as there is."""
        taken = 0
        for line in lines:
            if taken and (taken + len(line) > MOST_AT_ONCE or self._rotation.is_due(size + taken, len(line))):
                return
            taken += len(line)
            yield line

    def _write(self, fd: int, size: int, data: bytes) -> int:
        """The bytes that stay on a file of that size, in whole lines."""
        kept = 0
        try:
            kept = _written(fd, data)
            if self._sync:
                os.fsync(fd)
        except OSError:
            _cut(fd, size)
            raise
        if kept < len(data):
            _cut(fd, size + kept)
        return kept


def _written(fd: int, data: bytes) -> int:
    """The bytes of whole lines among those written. A write cut short is gone on with, to learn why."""
    done = 0
    try:
        while done < len(data):
            done += os.write(fd, data[done:])
    except OSError:
        done = data.rfind(b"\n", 0, done) + 1
        if not done:
            raise
    return done


def _cut(fd: int, size: int) -> None:
    with suppress(OSError):  # a file that may only grow (chattr +a) keeps it; half a line is ended before the next
        os.ftruncate(fd, size)


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only when its folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
