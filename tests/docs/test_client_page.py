"""docs/client.md: its snippets print what it shows, its commands work, and it tells every method, option and error."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
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
LLAMA_INDEX: Final = ("httpx", "llama-index-llms-openai-like==0.8.0")
WITHIN_S: Final = 300
COMMAND: Final = re.compile(r"^\$ rheostat (.*)\n((?:(?!\$ |```).*\n)*)", re.MULTILINE)
COMMANDS: Final = [(line, shown) for line, shown in COMMAND.findall(PAGE)]
TYPED: Final = "> "
DIFFERS: Final = (
    (r"\d+ ms\b", "_ ms"),
    (r"request [0-9a-f]{32}", "request _"),
    (r"^(│ [\d.]+ +│ [\d.]+ +)│ [\d.]+ +│ [\d.]+ +│ Plan: ", r"\1│ _ │ _ │ Plan: "),
    (r"Plan: [^│]*", "Plan: _ "),
    (r"[ ━─]+", " "),
)
"""What differs from run to run: times, ids, the levels of what a model said, its words, and the widths of columns."""


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
        env={**os.environ, "RHEOSTAT_BASE_URL": url, "COLUMNS": "120"},
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


def form(line: str) -> str:
    """A line of a terminal without what differs from run to run."""
    for pattern, instead in DIFFERS:
        line = re.sub(pattern, instead, line)
    return line.strip()


@pytest.mark.parametrize(("line", "shown"), COMMANDS)
def test_every_command_prints_what_is_shown(demo_url: str, line: str, shown: str, tmp_path: Path) -> None:
    """What the page shows after `> ` is typed; a prompt that is no terminal's is not printed."""
    typed = [each.removeprefix(TYPED) for each in shown.splitlines() if each.startswith(TYPED)]
    wanted = sorted(form(each) for each in shown.splitlines() if not each.startswith(TYPED))
    result = run(demo_url, "-m", "rheostat", *shlex.split(line), said="\n".join(typed), folder=tmp_path)
    assert sorted(form(each) for each in (result.stdout + result.stderr).splitlines()) == wanted
    assert result.returncode == (1 if "--model other" in line else 0)


def test_there_are_commands() -> None:
    assert [line.split()[0] for line, _ in COMMANDS] == ["chat", "chat", "sweep", "score", "chat"]
    assert all(shown for _, shown in COMMANDS)


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


@pytest.fixture(scope="session")
def llama_index_python() -> Iterator[str]:
    """An interpreter that has LlamaIndex, which wants another openai than the other packages."""
    with TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "0", *LLAMA_INDEX]
        for command in ([sys.executable, "-m", "venv", folder], install):
            done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S)
            if done.returncode:
                pytest.skip(f"LlamaIndex could not be installed: {(done.stderr or done.stdout).splitlines()[-1]}")
        yield python


@pytest.fixture
def python_of(request: pytest.FixtureRequest) -> str:
    """The interpreter that has the packages of an example."""
    if request.param == "llama_index":
        found: str = request.getfixturevalue("llama_index_python")
        return found
    pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    return sys.executable


@pytest.mark.parametrize(
    ("python_of", "example"), [("langchain", "langchain"), ("llama_index", "llama_index")], indirect=["python_of"]
)
def test_dials_reach_the_server_through_other_frameworks(python_of: str, example: str) -> None:
    engine = FakeEngine(served=("demo",))
    with app_server(engine, load_adapters([], base_digest=""), demo.scorers_file()) as url:
        script = ROOT / "examples" / "python" / f"{example}_chat.py"
        environment = {**os.environ, "RHEOSTAT_BASE_URL": url, "PYTHONPATH": str(ROOT / "clients" / "python")}
        result = subprocess.run([python_of, str(script)], env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        with Client(url) as client:
            wanted = [
                client.plan("How do I repot a fern?", dials=dials).engine_request["messages"]
                for dials in ({"safety": 0.9, "helpfulness": 0.2}, {"safety": 0.2, "helpfulness": 1.0})
            ]
    assert [request.body["messages"] for request in engine.asked] == wanted
    assert wanted[0] != wanted[1]
