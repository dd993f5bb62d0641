"""What the tests share that end a training by SIGKILL: processes that begin quickly, and ways to die."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import save_file

from tests.waiting import until


def processes_with_everything_imported() -> ForkServerContext:
    """Processes that begin with everything imported, which alone takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tests.training.tiny_fit",
            "rheostat_training.run",
            "rheostat_training.trl_trainers",
            "rheostat_training.scorer_fit",
        ]
    )
    return context


def begin(processes: ForkServerContext, work: Callable[..., None], *given: object) -> ForkServerProcess:
    process = processes.Process(target=work, args=given)
    process.start()
    return process


def ended(process: ForkServerProcess) -> int | None:
    """How a process ended."""
    process.join(120)
    return process.exitcode


def kill_when(
    process: ForkServerProcess, seen: Callable[[], bool], *, after_s: float = 0.0, within_s: float = 60
) -> None:
    """Ends a process by SIGKILL `after_s` seconds after `seen`; one that ends earlier fails the test."""
    try:
        until(lambda: seen() or not process.is_alive(), within_s=within_s, every_s=0.002)
        assert process.is_alive(), "it ended before it could be killed"
        time.sleep(after_s)
    finally:
        process.kill()
    assert ended(process) == -signal.SIGKILL


def replaced(moment: tuple[ModuleType, str, object] | None) -> None:
    """Replaces the name of a module in this process, where a moment is given."""
    if moment:
        setattr(*moment)


def die(*_: object, **__: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


class HalfAFile:
    """Writes checkpoints as the library does, and dies within the third of them after the first half of its bytes."""

    def __init__(self) -> None:
        self.written = 0

    def __call__(self, tensors: Any, path: Path, metadata: Any) -> None:
        save_file(tensors, path, metadata=metadata)
        self.written += 1
        if self.written == 3:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            die()
