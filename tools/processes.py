"""Programs that tests and benchmarks start, vLLM first of all: each is gone when its block ends.

`started` and then `wait_until_ready` is for a server, `output_of` for a program that comes to an end by itself.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx

ROOT: Final = Path(__file__).parents[1]
BIN: Final = Path(sys.executable).parent
READY_WITHIN_S: Final = 280
STOPS_WITHIN_S: Final = 30
TOLD: Final = 4000
"""Characters of a log's end that an error shows."""

Process = subprocess.Popen[bytes]


class ProgramFailed(RuntimeError):
    """A program did not get ready, or failed; the message shows the end of its log."""


@contextmanager
def started(
    command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str] | None = None
) -> Generator[Process]:
    """Runs `command` in the repository's root until the block ends, however it ends.

    The program is one of this environment's, or a path. What it says goes to `log`. Its whole process group is ended:
    asked by SIGTERM, and killed if it stays.
    """
    program, *arguments = command
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603, the commands are our own
            [BIN / program, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # no session of its own: beside one whose engine spins, Linux starves the clients
        )
    try:
        yield process
    finally:
        _stop(process)


def wait_until_ready(process: Process, url: str, *, log: Path) -> None:
    """Until `url` answers 200.

    Raises:
        ProgramFailed: the process ended first, or it took too long.
    """
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise ProgramFailed(f"{url} did not answer 200 within {READY_WITHIN_S} s; {_end_of(log)}")
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise ProgramFailed(f"the server of {url} ended with status {process.returncode}; {_end_of(log)}")


def output_of(
    command: Sequence[str | Path], *, log: Path, within_s: float, environment: Mapping[str, str] | None = None
) -> str:
    """What a program says until it ends.

    Raises:
        ProgramFailed: its status was not 0, or it took too long.
    """
    with started(command, log=log, environment=environment) as process:
        try:
            status = process.wait(within_s)
        except subprocess.TimeoutExpired as exc:
            raise ProgramFailed(f"{command[0]} did not end within {within_s:g} s; {_end_of(log)}") from exc
    if status:
        raise ProgramFailed(f"{command[0]} ended with status {status}; {_end_of(log)}")
    return log.read_text()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: Process) -> None:
    try:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOPS_WITHIN_S)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: Process, sent: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, sent)


def _end_of(log: Path) -> str:
    return f"the end of its log, {log}:\n{log.read_text(errors='replace')[-TOLD:]}"
