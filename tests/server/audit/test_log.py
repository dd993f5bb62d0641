"""The audit log: records in order, failures loud and counted, closed where the operator says so."""

import asyncio
import os
import select
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import structlog

from rheostat_server.audit import log as audit_log
from rheostat_server.audit.health import AuditUnavailable
from rheostat_server.audit.log import AuditLog
from tests.server.audit.conftest import Counts, Holder, all_records, records_of
from tests.waiting import until_it_is

FULL = Path("/dev/full")


@asynccontextmanager
async def opened(path: Path, *, fail_closed: bool = False, **options: Any) -> AsyncGenerator[AuditLog, None]:
    audit = AuditLog(path, max_bytes=2**20, backups=3, fail_closed=fail_closed, **options)
    try:
        yield audit
    finally:
        await audit.close()


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that failed may be tried again at once."""
    monkeypatch.setattr(audit_log, "SECONDS_BETWEEN_PROBES", 0.0)


async def handed_over(audit: AuditLog, record: dict[str, Any]) -> asyncio.Task[None]:
    """The task of a write that has come as far as the thread."""
    task = asyncio.create_task(audit.write(record))
    await asyncio.sleep(0)
    return task


async def test_a_record_is_on_the_file_when_write_returns(path: Path, counts: Counts) -> None:
    record = {"who": "kids-app", "dials": {"safety": 0.8}, "text": "two\nlines, naïve"}
    async with opened(path) as audit:
        await audit.write(record)
        assert records_of(path) == [record]
    assert counts("records") == 1
    assert counts("lost") == 0


async def test_records_stand_in_the_order_in_which_they_were_handed_over(path: Path) -> None:
    async with opened(path) as audit:
        await asyncio.gather(*(audit.write({"n": n}) for n in range(1000)))
        assert [record["n"] for record in records_of(path)] == list(range(1000))


async def test_a_record_that_is_changed_later_stands_as_it_was(path: Path, held_by_another: Holder) -> None:
    record = {"n": 0}
    async with opened(path) as audit:
        with held_by_another():
            task = await handed_over(audit, record)
            record["n"] = 1
        await task
    assert records_of(path) == [{"n": 0}]


async def test_records_that_wait_are_written_together(
    path: Path, held_by_another: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    write = os.write

    def watched(fd: int, data: bytes) -> int:
        if data.startswith(b'{"n"'):
            writes.append(data)
        return write(fd, data)

    monkeypatch.setattr(os, "write", watched)
    async with opened(path) as audit:
        with held_by_another():
            tasks = [await handed_over(audit, {"n": n}) for n in range(300)]
        await asyncio.gather(*tasks)
    assert len(writes) <= 2
    assert [record["n"] for record in records_of(path)] == list(range(300))


@pytest.mark.timeout(60)  # a loop that is blocked would never come to read the pipe
async def test_the_event_loop_runs_on_while_the_disk_is_slow(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    async with opened(fifo) as audit:
        task = await handed_over(audit, {"pad": "x" * 200_000})
        await until_it_is(lambda: reader in select.select([reader], [], [], 0)[0])
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not task.done(), "the pipe holds 64 KiB, and nobody reads"
        os.set_blocking(reader, True)
        read = b""
        while not read.endswith(b"\n"):
            read += await asyncio.to_thread(os.read, reader, 2**16)
        await task
    os.close(reader)
    assert len(read) == len(b'{"pad":""}\n') + 200_000


async def test_a_file_that_is_deleted_is_made_anew_and_nothing_failed(path: Path, counts: Counts) -> None:
    async with opened(path, fail_closed=True) as audit:
        await audit.write({"n": 0})
        path.unlink()
        await audit.write({"n": 1})
    assert records_of(path) == [{"n": 1}]
    assert counts("lost") == 0


async def test_a_file_that_is_renamed_is_left_to_whoever_renamed_it(path: Path) -> None:
    async with opened(path) as audit:
        await audit.write({"n": 0})
        moved = path.rename(path.with_name("moved"))
        await audit.write({"n": 1})
    assert records_of(moved) == [{"n": 0}]
    assert records_of(path) == [{"n": 1}]


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize("fail_closed", [False, True])
async def test_a_folder_that_is_gone_is_told_once_and_its_return_too(
    path: Path, counts: Counts, fail_closed: bool
) -> None:
    gone = counts.failures("gone")
    async with opened(path, fail_closed=fail_closed) as audit:
        await audit.write({"n": 0})
        shutil.rmtree(path.parent)
        with structlog.testing.capture_logs() as logs:
            for n in range(1, 4):
                if fail_closed:
                    with pytest.raises(AuditUnavailable):
                        await audit.write({"n": n})
                else:
                    await audit.write({"n": n})
            assert counts.failing()
            path.parent.mkdir()
            await audit.check()
            await audit.write({"n": 4})
    assert records_of(path) == [{"n": 4}]
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("audit log fails", "error"), ("audit log works again", "info"),
    ]  # fmt: skip
    assert logs[0]["cause"] == "gone"
    assert logs[0]["path"] == str(path)
    assert counts.failures("gone") - gone == 3
    assert counts("lost") == 3
    assert counts("records") == 2
    assert not counts.failing()


async def test_a_full_disk_fails_and_the_record_is_counted_as_lost(counts: Counts) -> None:
    full = counts.failures("disk_full")
    async with opened(FULL) as audit:
        await audit.write({"n": 0})
        await audit.check()
    assert counts.failures("disk_full") - full == 1
    assert counts("lost") == 1
    assert counts("records") == 0


async def test_a_log_that_fails_closed_refuses_with_503_and_a_time_to_come_back() -> None:
    async with opened(FULL, fail_closed=True) as audit:
        await audit.check()
        with pytest.raises(AuditUnavailable) as refused:
            await audit.write({"n": 0})
        with pytest.raises(AuditUnavailable):
            await audit.check()
    error = refused.value
    assert (error.status, error.type, error.code) == (503, "audit_unavailable", "audit_unavailable")
    assert error.headers == {"Retry-After": "1"}
    assert "disk_full" in error.message
    assert "/dev" not in error.message


async def test_a_log_that_failed_is_tried_again_at_most_once_a_second(
    path: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(audit_log, "monotonic", lambda: clock[-1])
    shutil.rmtree(path.parent)
    async with opened(path, fail_closed=True) as audit:
        with pytest.raises(AuditUnavailable):
            await audit.write({"n": 0})
        before = counts.failures("gone")
        for now in (1000.0, 1000.5, 1000.99):
            clock.append(now)
            with pytest.raises(AuditUnavailable):
                await audit.check()
        assert counts.failures("gone") - before == 1
        path.parent.mkdir()
        with pytest.raises(AuditUnavailable):
            await audit.check()
        clock.append(1001.0)
        await audit.check()
        assert path.read_bytes() == b""


async def test_a_log_that_may_not_write_is_denied_until_it_may() -> None:
    with TemporaryDirectory() as folder:
        allowed = 0o777 if os.geteuid() == 0 else 0o700
        path = Path(folder, "audit.jsonl")
        Path(folder).chmod(0o700 if os.geteuid() == 0 else 0o500)
        command = [sys.executable, "-m", "tests.server.audit.privileges", str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            while lines[-1] and not lines[-1].startswith("denied"):
                lines.append(process.stdout.readline())
            Path(folder).chmod(allowed)
            process.communicate("go on\n", timeout=60)
        assert lines[-1] == "denied 1\n"
        assert process.returncode == 0
        assert records_of(path) == [{"n": 1}]


async def test_a_folder_in_the_files_place_is_a_failure(path: Path, counts: Counts) -> None:
    other = counts.failures("other")
    path.mkdir()
    async with opened(path) as audit:
        await audit.write({"n": 0})
    assert counts.failures("other") - other == 1


async def test_callers_that_hang_up_leave_their_records_to_be_written(path: Path, held_by_another: Holder) -> None:
    async with opened(path) as audit:
        with held_by_another():
            tasks = [await handed_over(audit, {"n": n}) for n in range(20)]
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        await until_it_is(lambda: len(records_of(path)) == 20)
    assert [record["n"] for record in records_of(path)] == list(range(20))


async def test_closing_writes_what_waits(path: Path, held_by_another: Holder) -> None:
    async with opened(path) as audit:
        with held_by_another():
            tasks = [await handed_over(audit, {"n": n}) for n in range(20)]
            closing = asyncio.create_task(audit.close())
            await asyncio.sleep(0.05)
            assert not closing.done()
        await closing
        assert len(records_of(path)) == 20
        await asyncio.gather(*tasks)
        await audit.close()


async def test_closing_does_not_wait_for_ever_and_the_thread_writes_on(path: Path, held_by_another: Holder) -> None:
    async with opened(path, patience=0.05) as audit:
        with held_by_another(), structlog.testing.capture_logs() as logs:
            task = await handed_over(audit, {"n": 0})
            await audit.close()
            await task
        await until_it_is(lambda: records_of(path) == [{"n": 0}])
    assert next(line for line in logs if line["event"] == "audit log closes with records that wait")["records"] == 1


async def test_the_log_does_not_close_before_a_record_that_is_expected(path: Path, counts: Counts) -> None:
    async with opened(path) as audit:
        with audit.expecting():
            closing = asyncio.create_task(audit.close())
            await asyncio.sleep(0.05)
            await audit.write({"n": 0})
            assert not closing.done()
        await closing
    assert records_of(path) == [{"n": 0}]
    assert counts("lost") == 0


async def test_the_log_waits_for_no_record_longer_than_a_caller_waits(path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with opened(path, patience=0.05) as audit:
            with audit.expecting():
                await audit.close()
    assert [(line["event"], line["requests"]) for line in logs] == [
        ("audit log closes before requests that are open", 1)
    ]


@pytest.mark.parametrize("fail_closed", [False, True])
async def test_writing_after_the_end_is_a_failure(path: Path, counts: Counts, fail_closed: bool) -> None:
    closed = counts.failures("closed")
    async with opened(path, fail_closed=fail_closed) as audit:
        await audit.close()
        if fail_closed:
            with pytest.raises(AuditUnavailable):
                await audit.write({"n": 0})
            with pytest.raises(AuditUnavailable):
                await audit.check()
        else:
            await audit.write({"n": 0})
            await audit.check()
    assert counts.failures("closed") - closed == 1
    assert counts("lost") == 1
    assert not path.exists()


@pytest.mark.parametrize("fail_closed", [False, True])
async def test_no_more_records_wait_than_may(
    path: Path, held_by_another: Holder, counts: Counts, fail_closed: bool
) -> None:
    full = counts.failures("queue_full")
    async with opened(path, fail_closed=fail_closed, most_waiting=10) as audit:
        with held_by_another():
            tasks = [await handed_over(audit, {"n": n}) for n in range(10)]
            if fail_closed:
                with pytest.raises(AuditUnavailable, match="queue_full"):
                    await audit.write({"n": 10})
                with pytest.raises(AuditUnavailable, match="queue_full"):
                    await audit.check()
            else:
                await audit.write({"n": 10})
            assert counts.failing()
        await asyncio.gather(*tasks)
        assert not counts.failing()
        await audit.write({"n": 11})
    assert [record["n"] for record in records_of(path)] == [*range(10), 11]
    assert counts.failures("queue_full") - full == 1
    assert counts("lost") == 1


@pytest.mark.parametrize("fail_closed", [False, True])
async def test_a_caller_waits_for_a_slow_disk_only_so_long_and_its_record_is_written_later(
    path: Path, held_by_another: Holder, counts: Counts, fail_closed: bool
) -> None:
    slow = counts.failures("slow")
    async with opened(path, fail_closed=fail_closed, patience=0.05) as audit:
        with held_by_another():
            if fail_closed:
                with pytest.raises(AuditUnavailable, match="slow"):
                    await audit.write({"n": 0})
                with pytest.raises(AuditUnavailable, match="slow"):
                    await audit.check()
            else:
                await audit.write({"n": 0})
            assert counts.failing()
        await until_it_is(lambda: not counts.failing())
        assert records_of(path) == [{"n": 0}]
    assert counts.failures("slow") - slow == 1
    assert counts("lost") == 0


@pytest.mark.parametrize("fail_closed", [False, True])
async def test_a_record_that_is_no_json_is_lost_alone(path: Path, counts: Counts, fail_closed: bool) -> None:
    not_json = counts.failures("not_json")
    async with opened(path, fail_closed=fail_closed) as audit:
        with structlog.testing.capture_logs() as logs:
            if fail_closed:
                with pytest.raises(AuditUnavailable, match="not_json"):
                    await audit.write({"n": object()})
            else:
                await audit.write({"n": object()})
            await audit.check()
        await audit.write({"n": 1})
    assert records_of(path) == [{"n": 1}]
    assert [line["event"] for line in logs] == ["audit record lost"]
    assert counts.failures("not_json") - not_json == 1
    assert counts("lost") == 1


async def test_a_log_that_fails_while_it_rotates_works_again_afterwards(path: Path, counts: Counts) -> None:
    in_the_way = path.with_name(f"{path.name}.1")
    (in_the_way / "full").mkdir(parents=True)
    audit = AuditLog(path, max_bytes=100, backups=1, fail_closed=False)
    for n in range(12):
        await audit.write({"n": n, "pad": "x" * 30})
        if n == 5:
            shutil.rmtree(in_the_way)
    await audit.close()
    assert counts("lost") > 0
    assert counts("lost") + counts("records") == 12
    assert [record["n"] for record in all_records(path)][-1] == 11


@pytest.mark.parametrize(("options", "told"), [({"most_waiting": 0}, "most_waiting"), ({"patience": 0}, "patience")])
def test_a_number_that_cannot_be_meant_is_refused(path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"{told} is 0; it must be above 0"):
        AuditLog(path, max_bytes=1, backups=1, fail_closed=False, **options)
