"""The wheel is whole: every package with its data, the demo bundle among it, and the entry points."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("server/rheostat_server", "training/rheostat_training", "clients/python/rheostat")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    pytest.importorskip("hatchling", reason="builds the wheel")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [path] = out.glob("*.whl")
    return ZipFile(path)


def test_every_file_of_the_packages_is_in_the_wheel(wheel: ZipFile) -> None:
    folders = [ROOT / package for package in PACKAGES]
    wanted = {
        path.relative_to(folder.parent).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == wanted
    for model in ("base/model", "adapter/adapter_model", "selector/model"):
        assert f"rheostat_server/demo/bundle/{model}.safetensors" in held


def test_the_entry_points_are_in_the_wheel(wheel: ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    text = wheel.read(name).decode()
    for point in ("rheostat = rheostat.cli:main", "serve = rheostat_server", "[vllm.endpoint_plugins]"):
        assert point in text
