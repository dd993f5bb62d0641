"""The policy file is read anew beside the requests, one reading after the other, and a bad one changes nothing."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from prometheus_client import REGISTRY

from rheostat_server.callers.book import Defaults
from rheostat_server.callers.file import PolicyError
from rheostat_server.callers.shelf import Shelf
from tests.server.callers.files import KIDS_KEY, POLICY, bearer, write

AUTHORIZATION = bearer(KIDS_KEY)["Authorization"]
OIDC = "oidc: {issuer: 'https://issuer.test', audience: a, claims: [{claim: sub, value: x, envelope: lab}]}\n"


def least_safety(floor: float) -> str:
    return POLICY.replace("min: 0.8", f"min: {floor}")


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


@pytest.fixture
def slow_disk(tmp_path: Path) -> Iterator[Path]:
    """A policy file whose readers wait until somebody writes it."""
    path = tmp_path / "slow.yaml"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


async def least_safety_of_kids(shelf: Shelf) -> float:
    return (await shelf.caller_of(AUTHORIZATION)).policy.envelope.safety.minimum


async def test_requests_are_answered_while_the_file_is_read_and_readings_keep_their_order(
    tmp_path: Path, slow_disk: Path
) -> None:
    shelf = Shelf.read(write(tmp_path), Defaults())
    shelf.path = slow_disk
    readings = [asyncio.ensure_future(shelf.reload()) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert await least_safety_of_kids(shelf) == 0.8
    for at, floor in enumerate((0.9, 0.95)):
        await asyncio.to_thread(slow_disk.write_text, least_safety(floor))
        await readings[at]
        assert await least_safety_of_kids(shelf) == floor
        assert not any(reading.done() for reading in readings[at + 1 :])


async def test_a_file_that_is_refused_for_a_package_is_told_and_counted_and_not_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf.read(path := write(tmp_path), Defaults())
    before = shelf.book, value("rheostat_policy_loaded_timestamp_seconds"), value("rheostat_policy_keys")
    refused = value("rheostat_policy_reloads_total", outcome="refused") or 0
    monkeypatch.setitem(sys.modules, "jwt", None)
    monkeypatch.delitem(sys.modules, "rheostat_server.callers.tokens", raising=False)
    path.write_text("\n".join(line for line in POLICY.splitlines() if "operator" not in line) + f"\n{OIDC}")
    with structlog.testing.capture_logs() as logs, pytest.raises(PolicyError, match="oidc needs jwt"):
        await shelf.reload()
    assert [line["event"] for line in logs] == ["policy refused, the old one stays in force"]
    assert value("rheostat_policy_reloads_total", outcome="refused") == refused + 1
    assert (shelf.book, value("rheostat_policy_loaded_timestamp_seconds"), value("rheostat_policy_keys")) == before
    path.write_text(POLICY.replace("  - {name: operator", "# - {name: operator"))
    await shelf.reload()
    assert value("rheostat_policy_keys") == 2


async def test_a_hangup_has_it_read_and_a_second_one_reads_what_was_written_meanwhile(tmp_path: Path) -> None:
    shelf = Shelf.read(path := write(tmp_path), Defaults())
    shelf.reload_on_hangup()
    try:
        for floor in (0.85, 0.9, 0.95):
            path.write_text(least_safety(floor))
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while await least_safety_of_kids(shelf) != 0.95:
                await asyncio.sleep(0.01)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
