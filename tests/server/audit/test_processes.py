"""Several processes append to one audit file, which is rotated, renamed and killed under them."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.server.audit.conftest import all_records, files_of, records_of
from tests.waiting import until

RECORDS = 2000


def begin(path: Path, name: str, *, records: int = RECORDS, max_bytes: int, backups: int) -> subprocess.Popen[bytes]:
    options = [str(path), name, *map(str, (records, max_bytes, backups))]
    return subprocess.Popen([sys.executable, "-m", "tests.server.audit.writer", *options])


def of(name: str, records: Iterable[dict[str, Any]]) -> list[int]:
    return [record["n"] for record in records if record["name"] == name]


def test_two_processes_write_every_record_once_and_rotate_once_where_it_is_due(path: Path) -> None:
    writers = [begin(path, name, max_bytes=50_000, backups=50) for name in ("one", "two")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    records = all_records(path)
    assert of("one", records) == list(range(RECORDS))
    assert of("two", records) == list(range(RECORDS))
    *rotated, current = [one.stat().st_size for one in files_of(path)]
    assert len(rotated) > 5
    assert current <= 50_000
    assert all(50_000 - 300 < size <= 50_000 for size in rotated), "a file was rotated before it was full"


def test_a_file_that_is_renamed_while_two_processes_write_loses_nothing(path: Path) -> None:
    writers = [begin(path, name, max_bytes=2**30, backups=0) for name in ("one", "two")]
    moved: list[Path] = []
    while any(writer.poll() is None for writer in writers):
        time.sleep(0.005)
        if path.exists():
            moved.append(path.rename(path.with_name(f"moved-{len(moved)}")))
    assert [writer.returncode for writer in writers] == [0, 0]
    files = [*moved, path] if path.exists() else moved
    records = [record for one in files for record in records_of(one)]
    assert Counter(of("one", records)) == Counter(range(RECORDS))
    assert Counter(of("two", records)) == Counter(range(RECORDS))
    assert len(moved) > 2


def test_a_process_that_is_killed_keeps_no_other_from_writing(path: Path) -> None:
    killed = begin(path, "killed", records=10**6, max_bytes=50_000, backups=10**4)
    until(lambda: path.exists() and path.stat().st_size >= 1000)
    other = begin(path, "other", max_bytes=50_000, backups=10**4)
    until(path.with_name(f"{path.name}.1").exists)
    killed.kill()
    killed.wait()
    assert other.wait(120) == 0
    text = b"".join(one.read_bytes() for one in files_of(path)).decode()
    assert [text.count(f'"name":"other","n":{n},') for n in range(RECORDS)] == [1] * RECORDS
