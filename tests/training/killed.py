"""What the tests share that end a training by SIGKILL: processes that begin quickly, and ways to die."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import save_file


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
