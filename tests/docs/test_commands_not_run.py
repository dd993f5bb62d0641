"""Commands of ours that are not run are at least ones that the command line takes, and their files are there."""

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from tests.docs.blocks import Block, every_block
from tools.processes import ROOT

COMMANDS: Final = {point.name: point for point in entry_points(group="rheostat.commands")}
OURS: Final = re.compile(r"^(?:[A-Z_]+=\S+\s+)*rheostat (.+)$", re.MULTILINE)
BLOCKS: Final = [block for block in every_block("sh", "bash", "console") if "not run" in block.said]


def lines_of(block: Block) -> Iterator[list[str]]:
    """The arguments of each `rheostat` command; what stands after -- is the engine's."""
    for line in OURS.findall(block.text.replace("\\\n", " ")):
        arguments = shlex.split(line, comments=True)
        yield arguments[: arguments.index("--")] if "--" in arguments else arguments


def command_called(name: str) -> TyperCommand | TyperGroup:
    loaded = COMMANDS[name].load()
    app = loaded if isinstance(loaded, typer.Typer) else typer.Typer()
    if app is not loaded:
        app.command(name)(loaded)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand | TyperGroup)
    return command


def parse(arguments: list[str]) -> None:
    """Raises what the command itself would refuse them with."""
    command, rest = command_called(arguments[0]), arguments[1:]
    while isinstance(command, TyperGroup):
        _, found, rest = command.resolve_command(typer.Context(command), rest)
        assert isinstance(found, TyperCommand | TyperGroup)
        command = found
    command.make_context(command.name, rest).close()


@pytest.mark.parametrize("arguments", [line for block in BLOCKS for line in lines_of(block)], ids=" ".join)
def test_the_command_line_takes_it(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (Path(argument) for argument in arguments if Path(argument).suffix):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()  # a reader's own
    parse(arguments)


@pytest.mark.parametrize(
    ("line", "said"),
    [("serve --polcy x", "No such option"), ("train magic", "No such command"), ("keys create", "Missing")],
)
def test_what_it_does_not_take_is_noticed(line: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        parse(line.split())


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_repositorys_files_that_it_names_are_there(block: Block) -> None:
    named = re.findall(
        r"\b(?:(?:training|operations|clients|docker|kubernetes|tools|benchmarks)/|compose\.)[\w./-]+", block.text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
