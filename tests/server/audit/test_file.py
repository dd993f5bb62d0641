"""The audit file: whole lines whatever the disk does, and rotation by size."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rheostat_server.audit.file import MOST_AT_ONCE, AuditFile, Rotation
from tests.server.audit.conftest import all_records, files_of, records_of

ENDLESS = Rotation(2**40, 0)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A disk that is full: a write is cut short at that size, and the next is refused (Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def line(number: int, size: int = 100) -> bytes:
    start = b'{"n":%d,"pad":"' % number
    return start + b"x" * (size - len(start) - 3) + b'"}\n'


def append_all(file: AuditFile, lines: list[bytes]) -> None:
    while lines:
        lines = lines[file.append(lines) :]


def numbers(path: Path) -> list[int]:
    return [record["n"] for record in all_records(path)]


def test_a_new_file_is_for_its_owner_alone(path: Path) -> None:
    AuditFile(path, ENDLESS).append([line(0)])
    assert path.stat().st_mode & 0o777 == 0o600


def test_lines_are_written_by_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = os.write

    def watched(fd: int, data: bytes) -> int:
        writes.append(data)
        return write(fd, data)

    monkeypatch.setattr(os, "write", watched)
    lines = [line(number) for number in range(50)]
    assert AuditFile(path, ENDLESS).append(lines) == 50
    assert writes == [b"".join(lines)]


def test_a_write_is_no_larger_than_its_limit_but_for_one_line_that_is(path: Path) -> None:
    file = AuditFile(path, ENDLESS)
    lines = [line(0, MOST_AT_ONCE + 1), line(1, MOST_AT_ONCE - 100), line(2), line(3)]
    assert [file.append(lines), file.append(lines[1:]), file.append(lines[3:])] == [1, 2, 1]
    assert numbers(path) == [0, 1, 2, 3]


@pytest.mark.parametrize("sync", [False, True])
def test_a_full_disk_takes_whole_lines_and_no_half_of_one(path: Path, sync: bool) -> None:
    file = AuditFile(path, ENDLESS, sync=sync)
    lines = [line(number) for number in range(10)]
    with no_file_beyond(350):
        assert file.append(lines) == 3
        assert path.stat().st_size == 300
        with pytest.raises(OSError, match="File too large"):
            file.append(lines[3:])
        assert path.stat().st_size == 300
    append_all(file, lines[3:])
    assert numbers(path) == list(range(10))


def test_half_a_line_of_a_process_that_was_killed_spoils_no_other(path: Path) -> None:
    path.write_bytes(line(0) + line(1)[:30])
    AuditFile(path, ENDLESS).append([line(2)])
    assert path.read_bytes().split(b"\n") == [line(0)[:-1], line(1)[:30], line(2)[:-1], b""]


def test_half_a_line_that_cannot_be_cut_off_spoils_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_grows(fd: int, size: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    file = AuditFile(path, ENDLESS)
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", only_grows)
        with no_file_beyond(50), pytest.raises(OSError, match="File too large"):
            file.append([line(0)])
    file.append([line(1)])
    assert path.read_bytes() == line(0)[:50] + b"\n" + line(1)


def test_lines_that_are_not_on_the_disk_for_sure_are_taken_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AuditFile(path, ENDLESS, sync=True)
    file.append([line(0)])

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="Input/output error"):
            file.append([line(1)])
    file.append([line(2)])
    assert numbers(path) == [0, 2]


def test_lines_are_on_the_disk_where_that_is_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    AuditFile(path, ENDLESS).append([line(0)])
    assert synced == []
    AuditFile(path, ENDLESS, sync=True).append([line(1)])
    assert synced == [path.parent.name, path.name]


def test_a_file_is_rotated_before_the_line_that_it_has_no_room_for(path: Path) -> None:
    file = AuditFile(path, Rotation(1000, 5))
    append_all(file, [line(number) for number in range(25)])
    assert [one.name for one in files_of(path)] == ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    assert [one.stat().st_size for one in files_of(path)] == [1000, 1000, 500]
    assert numbers(path) == list(range(25))


def test_the_oldest_file_makes_way_when_there_are_as_many_as_are_kept(path: Path) -> None:
    append_all(AuditFile(path, Rotation(1000, 2)), [line(number) for number in range(45)])
    assert numbers(path) == list(range(20, 45))


def test_files_after_a_free_number_stay_where_they_are(path: Path) -> None:
    for number in (1, 3):
        path.with_name(f"audit.jsonl.{number}").write_bytes(line(number))
    append_all(AuditFile(path, Rotation(100, 3)), [line(10), line(11)])
    assert numbers(path) == [3, 1, 10, 11]


def test_a_line_larger_than_a_file_has_one_for_itself(path: Path) -> None:
    append_all(AuditFile(path, Rotation(300, 9)), [line(0), line(1, 1000), line(2), line(3)])
    assert [[record["n"] for record in records_of(one)] for one in files_of(path)] == [[0], [1], [2, 3]]


def test_without_backups_nothing_is_rotated(path: Path) -> None:
    append_all(AuditFile(path, Rotation(100, 0)), [line(number) for number in range(5)])
    assert files_of(path) == [path]
    assert numbers(path) == list(range(5))


def test_a_device_is_never_rotated() -> None:
    file = AuditFile(Path("/dev/null"), Rotation(1, 3))
    append_all(file, [line(number) for number in range(5)])
    assert Path("/dev/null").is_char_device()
    assert not Path("/dev/null.1").exists()


def test_a_probe_leaves_nothing(path: Path) -> None:
    file = AuditFile(path, ENDLESS)
    file.append([line(0)])
    file.probe(4096)
    assert path.read_bytes() == line(0)


def test_a_probe_needs_as_much_room_as_it_is_told(path: Path) -> None:
    file = AuditFile(path, ENDLESS)
    file.append([line(0)])
    with no_file_beyond(1000):
        file.probe(900)
        with pytest.raises(OSError, match="File too large"):
            file.probe(901)
    assert path.read_bytes() == line(0)


def test_a_probe_of_a_device_is_a_real_attempt() -> None:
    with pytest.raises(OSError, match="No space left"):
        AuditFile(Path("/dev/full"), ENDLESS).probe(4096)


@pytest.mark.parametrize(("max_bytes", "backups", "told"), [(0, 1, "max_bytes is 0"), (1, -1, "backups is -1")])
def test_a_rotation_that_cannot_be_meant_is_refused(max_bytes: int, backups: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Rotation(max_bytes, backups)
