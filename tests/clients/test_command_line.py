"""The `rheostat` command: what it refuses, and that it imports no more than it needs."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


def rheostat(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rheostat", *arguments], capture_output=True, text=True, timeout=60, env=environment
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--engine", "remote"], "needs --upstream"),
        (["serve", "--port", "99999"], "port is 99999"),
        (["serve", "--", "--max-model-len", "8"], "'--max-model-len 8' stands after --"),
        (["serve", "nowhere", "--engine", "embedded"], "nowhere is not a folder"),
        (["serve", "--adapter", "nowhere"], "nowhere is not a folder"),
        (["serve", "--engine", "magic"], "'magic'"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(arguments: list[str], said: str) -> None:
    result = rheostat(*arguments)
    assert result.returncode == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_an_unknown_command_is_refused() -> None:
    result = rheostat("magic")
    assert result.returncode == 2
    assert "magic" in result.stderr


WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
from rheostat.cli import main
main({arguments!r})
"""


@pytest.mark.parametrize(
    ("command", "missing"), [("serve", "structlog"), ("demo", "torch"), ("train", "torch"), ("train", "datasets")]
)
def test_a_command_whose_packages_are_not_installed_names_the_extra(command: str, missing: str) -> None:
    run = ["run", str(Path(__file__).parents[1] / "training" / "miniature.yaml")]
    arguments = [command, *{"serve": [], "demo": ["build", "--fast"], "train": run}[command]]
    code = WITHOUT.format(missing=missing, arguments=arguments)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert f"rheostat {command} needs the module {missing}" in result.stderr
    assert "pip install 'rheostat[" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_stands_after_two_dashes_is_an_argument_and_refused_where_none_is_wanted() -> None:
    result = rheostat("demo", "build", "--", "--fast")
    assert result.returncode == 2
    assert "(--fast)" in " ".join(result.stderr.split())


def test_help_names_every_command() -> None:
    shown = rheostat("--help").stdout
    assert "serve" in shown
    assert "demo" in shown


def test_the_command_alone_imports_nothing_of_the_server() -> None:
    code = (
        "import sys, rheostat.cli; print([m for m in sys.modules if m.startswith(('rheostat_', 'torch', 'fastapi'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
