"""The `rheostat` command; what is installed brings its subcommands by the entry points `rheostat.commands`."""

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import typer

COMMANDS_GROUP = "rheostat.commands"
TAKES_FLAGS = "serve"
EXTRA_OF = {"serve": "embedded", "keys": "server", "demo": "training", "train": "training"}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; what stands after `--` is handed to `serve` as it is, as `ctx.obj`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, passed_on = _split_at_double_dash(arguments)
    if passed_on and ours[:1] != [TAKES_FLAGS]:
        _refuse(f"{' '.join(passed_on)!r} stands after --, and only `rheostat {TAKES_FLAGS}` takes flags there")
    try:
        _command_line(ours)(args=ours, obj=passed_on, prog_name="rheostat")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("rheostat"):
            raise
        _refuse(f"rheostat {ours[0]} needs the module {exc.name}, which is not installed; run: {_installing(ours[0])}")


def _split_at_double_dash(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    border = arguments.index("--")
    return arguments[:border], arguments[border + 1 :]


def _command_line(arguments: Sequence[str]) -> typer.Typer:
    """Only the subcommand that was asked for is imported; asked for help, all of them are."""
    root = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)
    root.callback()(_no_options)
    known = {point.name: point for point in entry_points(group=COMMANDS_GROUP)}
    asked = [known[name] for name in arguments[:1] if name in known]
    for point in asked or known.values():
        _add(root, point, needed=bool(asked))
    return root


def _no_options() -> None:
    """Two dials, safety and helpfulness, on any language model."""


def _add(root: typer.Typer, point: EntryPoint, *, needed: bool) -> None:
    try:
        command = point.load()
    except ModuleNotFoundError:
        if needed:
            raise
        return
    if isinstance(command, typer.Typer):
        root.add_typer(command, name=point.name)
    else:
        root.command(point.name)(command)


def _installing(command: str) -> str:
    return f"pip install 'rheostat[{EXTRA_OF.get(command, command)}]'"


def _refuse(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise SystemExit(2)
