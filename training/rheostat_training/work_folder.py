"""A folder that a command works in: what is somebody else's is not replaced, and nobody else is at work there."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rheostat_training.stage import is_taken, take


class Busy(RuntimeError):
    """Another process is at work in the folder."""


class NotOurs(ValueError):
    """The folder holds what the command has not made, and what it would replace."""


@contextmanager
def alone_in(folder: Path, *, what: str, option: str) -> Iterator[None]:
    """Makes the folder, and holds it for one `what`, a run, a build or a training.

    Raises:
        Busy: another process is at work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise Busy(
            f"{folder}: another {what} is at work in this folder; wait for it, or give another {option}"
        ) from None
    with held:
        yield


@contextmanager
def working_in(folder: Path, written: Iterable[str], *, what: str, option: str) -> Iterator[None]:
    """Makes the folder one of stages, in which `what` works alone; `written` are the names that it puts there.

    Raises:
        Busy: another process is at work in the folder.
        NotOurs: it holds files of somebody else's by those names.
    """
    with alone_in(folder, what=what, option=option):
        if not is_taken(folder):
            refuse_foreign(folder, written, what=what, option=option)
        take(folder)
        yield


def refuse_foreign(folder: Path, written: Iterable[str], *, what: str, option: str) -> None:
    """Raises NotOurs where some of `written` lies in a folder that is not known to be ours."""
    if there := [name for name in written if (folder / name).exists()]:
        raise NotOurs(
            f"{folder} holds {', '.join(there)}, which no {what} has made and a {what} would replace; "
            f"give another {option}"
        )
