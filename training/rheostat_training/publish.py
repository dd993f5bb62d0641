"""Puts what a stage made where users look for it."""

import os
import shutil
import stat
from pathlib import Path


def publish(source: Path, target: Path) -> Path:
    """Makes `target` the same file or folder as `source`, whole or not at all; files are linked where that is possible.

    Nobody writes into a published file in place, so both names may share its bytes.
    """
    partial = target.with_name(f".{target.name}.partial")
    withdraw(partial)
    if source.is_dir():
        shutil.copytree(source, partial, copy_function=_link)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source, partial)
    withdraw(target)
    return partial.replace(target)


def with_ordinary_permissions(folder: Path) -> Path:
    """Gives the files in a folder the permissions of any new file: safetensors makes its own for their owner alone.

    A server may run as another user than the one who trained.
    """
    new = folder / ".new"
    new.touch()
    ordinary = stat.S_IMODE(new.stat().st_mode)
    new.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(ordinary)
    return folder


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def withdraw(path: Path) -> None:
    """Removes a published file or folder, where it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
