"""A started program is always gone when its block ends, and a failed one says why."""

import sys
import time
from pathlib import Path

import pytest

from tools import processes
from tools.processes import ProgramFailed, free_port, output_of, started, wait_until_ready

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(300)
"""


def test_a_program_that_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOPS_WITHIN_S", 0.1)
    log = tmp_path / "log"
    with (
        pytest.raises(KeyboardInterrupt),
        started([sys.executable, "-W", "ignore", "-c", STUBBORN], log=log) as process,
    ):
        interrupted_after_a_line(log)
    assert process.returncode == -9
    until = time.monotonic() + 10
    while is_alive(int(log.read_text())):
        assert time.monotonic() < until
        time.sleep(0.01)


def interrupted_after_a_line(log: Path) -> None:
    while not log.read_text().endswith("\n"):
        time.sleep(0.01)
    raise KeyboardInterrupt


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended may wait for whoever is to collect its status."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_that_ends_before_it_is_ready_shows_the_end_of_its_log(tmp_path: Path) -> None:
    command, log = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"], tmp_path / "log"
    with (
        pytest.raises(ProgramFailed, match=r"ended with status 3; the end of its log, .*\n.*no such model"),
        started(command, log=log) as process,
    ):
        wait_until_ready(process, f"http://127.0.0.1:{free_port()}/health", log=log)


def test_a_server_that_takes_too_long_is_named_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "READY_WITHIN_S", 0.1)
    url, log = f"http://127.0.0.1:{free_port()}/health", tmp_path / "log"
    with (
        pytest.raises(ProgramFailed, match=rf"{url} did not answer 200 within 0\.1 s"),
        started([sys.executable, "-c", "import time; time.sleep(300)"], log=log) as process,
    ):
        wait_until_ready(process, url, log=log)
    assert process.returncode is not None


def test_what_a_program_says_is_returned_and_a_failure_is_raised(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os; print(os.environ['WORD'], os.getpgid(0) == os.getpid())"
    assert output_of([sys.executable, "-c", code], log=log, within_s=60, environment={"WORD": "yes"}) == "yes True\n"
    with pytest.raises(ProgramFailed, match=r"(?s)ended with status 1; .*ZeroDivisionError"):
        output_of([sys.executable, "-c", "1 / 0"], log=log, within_s=60)
    with pytest.raises(ProgramFailed, match=r"did not end within 0\.1 s"):
        output_of([sys.executable, "-c", "import time; time.sleep(300)"], log=log, within_s=0.1)
