"""docs/client.md: its snippets print what it shows, its commands work, and it tells every method, option and error."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from rheostat import Client, Options, errors
from rheostat_server import demo
from rheostat_server.adapters import load_adapters
from rheostat_server.contract.digest import base_model_digest
from rheostat_server.engines.fake import FakeEngine
from tests.engines.app_server import app_server

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "client.md").read_text()
HOST: Final = "http://127.0.0.1:8000"
SNIPPET: Final = re.compile(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
SHOWN: Final = [(code, shown) for code, shown in SNIPPET.findall(PAGE)]
COMMANDS: Final = re.findall(r"^\$ rheostat (.*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    adapters = load_adapters([demo.adapter_folder()], base_digest=base_model_digest(demo.base_folder()))
    engine = FakeEngine(served=(demo.DEMO_NAME,), adapters=adapters.ids)
    with app_server(engine, adapters, demo.scorers_file()) as url:
        yield url


def run(url: str, *command: str, said: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**os.environ, "RHEOSTAT_BASE_URL": url},
    )


@pytest.mark.parametrize(("code", "shown"), SHOWN)
def test_every_snippet_runs_and_prints_what_is_shown(url: str, code: str, shown: str) -> None:
    result = run(url, "-W", "error", "-c", code.replace(HOST, url))
    assert result.returncode == 0, result.stderr
    said = [line for line in shown.splitlines() if "[…]" not in line]
    assert all(line in result.stdout for line in said)


def test_there_are_snippets() -> None:
    assert len(SHOWN) == 6
    assert sum(bool(shown) for _, shown in SHOWN) == 4


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_works(url: str, line: str, tmp_path: Path) -> None:
    result = run(url, "-m", "rheostat", *shlex.split(line), folder=tmp_path)
    assert result.returncode == (1 if "--model other" in line else 0), result.stderr
    assert result.stdout or result.stderr


def test_the_quick_start_runs(url: str) -> None:
    result = run(url, str(ROOT / "examples" / "python" / "quick_start.py"))
    assert "NotFound 404 model_not_found" in result.stdout, result.stderr


def test_every_method_option_and_error_is_told() -> None:
    methods = [name for name in vars(Client) if not name.startswith("_") and name != "defaults"]
    assert [name for name in methods if f"`{name}(" not in PAGE] == []
    assert [name for name in Options.__annotations__ if f"`{name}`" not in PAGE and f"`{name}=" not in PAGE] == []
    tree = str(errors.__doc__).split("\n\n")[1]
    told = [re.split(r"  ", line)[0].rstrip() for line in tree.splitlines()]
    assert [line for line in told if line.split(" 4")[0].split(" 5")[0] not in PAGE] == []


def test_the_conversations_commands_are_those_of_the_help(url: str) -> None:
    [begun] = re.findall(r"^(/safety .* is said)$", PAGE, re.MULTILINE)
    assert run(url, "-m", "rheostat", "chat", said="/quit\n").stderr.strip() == begun


@pytest.mark.parametrize(("package", "example"), [("langchain_openai", "langchain"), ("llama_index", "llama_index")])
def test_dials_reach_the_server_through_other_frameworks(package: str, example: str) -> None:
    python = os.environ.get("RHEOSTAT_EXAMPLES_PYTHON", sys.executable)
    if subprocess.run([python, "-c", f"import httpx, {package}"], capture_output=True, timeout=120).returncode:
        pytest.skip(f"{package} is not installed; RHEOSTAT_EXAMPLES_PYTHON may name an interpreter that has it")
    engine = FakeEngine(served=("demo",))
    with app_server(engine, load_adapters([], base_digest=""), demo.scorers_file()) as url:
        script = ROOT / "examples" / "python" / f"{example}_chat.py"
        environment = {**os.environ, "RHEOSTAT_BASE_URL": url, "PYTHONPATH": str(ROOT / "clients" / "python")}
        result = subprocess.run([python, str(script)], env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        with Client(url) as client:
            wanted = [
                client.plan("How do I repot a fern?", dials=dials).engine_request["messages"]
                for dials in ({"safety": 0.9, "helpfulness": 0.2}, {"safety": 0.2, "helpfulness": 1.0})
            ]
    assert [request.body["messages"] for request in engine.asked] == wanted
    assert wanted[0] != wanted[1]
