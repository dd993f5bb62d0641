"""What the files for deployment say: Dockerfiles, compose files and Kubernetes manifests, as values."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from rheostat_server.settings import Settings

ROOT: Final = Path(__file__).parents[2]
DOCKERFILES: Final = sorted((ROOT / "docker").glob("Dockerfile*"))
COMPOSE_FILES: Final = sorted(ROOT.glob("compose*.yaml"))
MANIFESTS: Final = sorted((ROOT / "kubernetes").rglob("*.yaml"))
VERSION: Final[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SETTINGS: Final = {f"RHEOSTAT_{name.upper()}" for name in Settings.model_fields}
USER: Final = 10001
LAST_SECONDS: Final = 5
"""What a server takes to close its connections, once nothing runs."""


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction and what it says, lines that go on joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def said(dockerfile: Path, name: str) -> list[str]:
    return [rest for each, rest in instructions(dockerfile) if each == name]


def commands(dockerfile: Path, name: str) -> list[list[str]]:
    """Those of ENTRYPOINT, CMD or HEALTHCHECK, which are lists: a shell would keep signals to itself."""
    texts = (re.sub(r"^(--\S+ +)*(CMD )?", "", rest) for rest in said(dockerfile, name))
    return [json.loads(text) for text in texts if text != "NONE"]


def services(compose: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(compose.read_text())["services"]
    return found


def ours(compose: Path) -> dict[str, dict[str, Any]]:
    """The services of ours."""
    return {name: each for name, each in services(compose).items() if each["image"].startswith("rheostat")}


def environment(service: dict[str, Any]) -> dict[str, str]:
    given = service.get("environment", {})
    return given if isinstance(given, dict) else dict(line.partition("=")[::2] for line in given)


def documents(manifest: Path) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all(manifest.read_text())
