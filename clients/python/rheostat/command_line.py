"""The root of the command line, with the subcommands that are needed."""

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Final

import typer

COMMANDS_GROUP: Final = "rheostat.commands"
COMPLETED: Final = ("_TYPER_COMPLETE_ARGS", "COMP_WORDS")
"""Where a shell that wants a line completed puts it: zsh and fish, and bash."""


def command_line(arguments: Sequence[str]) -> typer.Typer:
    """Only the subcommand that was asked for is imported; asked for help, all of them are."""
    root = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)
    root.callback()(_options)
    known = {point.name: point for point in entry_points(group=COMMANDS_GROUP)}
    words = arguments or _to_be_completed()
    asked = [known[name] for name in words[:1] if name in known]
    _add_all(root, asked or known.values(), needed=bool(asked))
    return root


def _to_be_completed() -> Sequence[str]:
    lines = (os.environ.get(name, "") for name in COMPLETED)
    return next((line.split()[1:] for line in lines if line), ())


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rheostat {version('rheostat')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Two dials, safety and helpfulness, on any language model."""


def _add_all(root: typer.Typer, points: Iterable[EntryPoint], *, needed: bool) -> None:
    """A command whose packages are not installed is left out, unless it is the one that was asked for."""
    for point in points:
        try:
            command = point.load()
        except ModuleNotFoundError:
            if needed:
                raise
            continue
        if isinstance(command, typer.Typer):
            root.add_typer(command, name=point.name)
        else:
            root.command(point.name)(command)
