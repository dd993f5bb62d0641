"""What the tests of the audit log read back, and how they keep it from writing."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from prometheus_client import REGISTRY

Records: TypeAlias = list[dict[str, Any]]
Holder: TypeAlias = Callable[[], AbstractContextManager[None]]


def records_of(path: Path) -> Records:
    """Every line of a file must be a record."""
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def files_of(path: Path) -> list[Path]:
    """The oldest first."""
    rotated = [one for one in path.parent.glob(f"{path.name}.*") if one.suffix[1:].isdecimal()]
    return [*sorted(rotated, key=lambda one: -int(one.suffix[1:])), path]


def all_records(path: Path) -> Records:
    return [record for file in files_of(path) for record in records_of(file)]


class Counts:
    """How much the audit metrics have grown since the test began."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._before = {name: self(name) for name in ("records", "lost")}

    def __call__(self, name: str) -> float:
        return (REGISTRY.get_sample_value(f"rheostat_audit_{name}_total") or 0) - self._before.get(name, 0)

    @staticmethod
    def failures(cause: str) -> float:
        return REGISTRY.get_sample_value("rheostat_audit_failures_total", {"cause": cause}) or 0

    @staticmethod
    def failing() -> bool:
        return REGISTRY.get_sample_value("rheostat_audit_failing") == 1


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder / "audit.jsonl"


@pytest.fixture
def held_by_another(path: Path) -> Holder:
    """Within it, the file's lock is another's, as if that other's disk hung: nobody else can write."""

    @contextmanager
    def hold() -> Iterator[None]:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    return hold
