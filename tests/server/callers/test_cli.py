"""`rheostat keys` as an operator uses it: comments stay, keys are shown once, and a bad change changes nothing."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rheostat_server.callers.book import Book, Defaults
from rheostat_server.callers.edit import PolicyFile
from rheostat_server.callers.file import PolicyError, read_policy
from rheostat_server.errors import Unauthorized
from tests.server.callers.files import KIDS_KEY, POLICY, write


def keys(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rheostat", "keys", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def caller(path: Path, key: str, *, now: datetime | None = None) -> str | None:
    found = Book.of(read_policy(path)[0], Defaults()).caller_of_key(key, now=now)
    return None if found is None else found.name


def test_a_key_is_created_used_rotated_and_revoked(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.chmod(0o640)
    made = keys("create", "nurse-app", "--policy", path, "--envelope", "lab", "--expires-in", "90d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("rheostat-")
    assert "shown this once" in made.stderr
    assert key not in path.read_text()
    assert caller(path, key) == "nurse-app"
    with pytest.raises(Unauthorized):
        caller(path, key, now=datetime.now(UTC) + timedelta(days=91))

    rotated = json.loads(keys("rotate", "nurse-app", "--policy", path, "--json").stdout)["key"]
    assert caller(path, rotated) == "nurse-app"
    assert caller(path, key) is None

    assert keys("revoke", "nurse-app", "--policy", path).returncode == 0
    assert caller(path, rotated) is None
    assert caller(path, KIDS_KEY) == "kids-app"
    assert "# no envelope goes below" in path.read_text()
    assert "anonymous: null" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["policy.yaml"]


def test_after_a_rotation_with_grace_both_keys_are_the_same_callers_for_a_while(tmp_path: Path) -> None:
    path = write(tmp_path)
    new = keys("rotate", "kids-app", "--policy", path, "--grace", "2h").stdout.strip()
    assert caller(path, new) == caller(path, KIDS_KEY) == "kids-app"
    told = json.loads(keys("list", "--policy", path, "--json").stdout)
    assert [key["caller"] for key in told if key["name"].startswith("kids-app")] == ["kids-app", "kids-app"]
    with pytest.raises(Unauthorized, match="'kids-app-until-"):
        caller(path, KIDS_KEY, now=datetime.now(UTC) + timedelta(hours=3))


def test_a_caller_who_is_revoked_has_no_key_left(tmp_path: Path) -> None:
    path = write(tmp_path)
    newest = [PolicyFile(path).rotate("kids-app", grace=timedelta(hours=hours)) for hours in (1, 2)][-1]
    PolicyFile(path).revoke("kids-app")
    assert (caller(path, newest), caller(path, KIDS_KEY)) == (None, None)
    assert [key.name for key in read_policy(path)[0].keys] == ["lab-app", "operator"]


def test_a_long_name_can_be_rotated(tmp_path: Path) -> None:
    path, name = write(tmp_path), "n" * 64
    old = PolicyFile(path).create(name, "lab")
    assert caller(path, PolicyFile(path).rotate(name, grace=timedelta(hours=1))) == caller(path, old) == name


def test_a_list_tells_names_and_no_keys(tmp_path: Path) -> None:
    path = write(tmp_path)
    shown = keys("list", "--policy", path)
    assert all(name in shown.stdout for name in ("kids-app", "children", "lab-app", "operator"))
    told = json.loads(keys("list", "--policy", path, "--json").stdout)
    assert [key["name"] for key in told] == ["kids-app", "lab-app", "operator"]
    assert all(len(key["sha256"]) == 13 for key in told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "kids-app", "--envelope", "lab"), "there is a key named 'kids-app'"),
        (("create", "x", "--envelope", "lost"), "keys.3.envelope: there is no such envelope; there are: children, lab"),
        (("create", "a b", "--envelope", "lab"), "keys.3.name"),
        (("create", "x", "--envelope", "lab", "--expires-in", "soon"), "such as 90d"),
        (("revoke", "lost"), "no key 'lost'; there are: kids-app, lab-app, operator"),
        (("rotate", "lost"), "no key 'lost'"),
    ],
)
def test_what_cannot_be_done_is_told_and_the_file_stays(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    path = write(tmp_path)
    result = keys(*arguments, "--policy", path)
    assert result.returncode == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert path.read_text() == POLICY
    assert [each.name for each in tmp_path.iterdir()] == ["policy.yaml"]


def test_two_who_create_keys_at_once_lose_none(tmp_path: Path) -> None:
    path = write(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: PolicyFile(path).create(f"app-{number}", "lab"), range(24)))
    assert [caller(path, key) for key in made] == [f"app-{number}" for number in range(24)]


def test_a_file_without_keys_gets_its_first(tmp_path: Path) -> None:
    path = write(tmp_path, "envelopes:\n  open:\nkeys:\n")
    key = PolicyFile(path).create("first", "open")
    assert caller(path, key) == "first"
    with pytest.raises(PolicyError, match="cannot be read"):
        PolicyFile(tmp_path / "none" / "policy.yaml").create("first", "open")
