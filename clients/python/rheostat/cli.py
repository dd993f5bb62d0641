"""The `rheostat` command; what is installed brings its subcommands by the entry points `rheostat.commands`."""

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import typer

COMMANDS_GROUP = "rheostat.commands"
EXTRA_OF = {"serve": "embedded", "demo": "training", "train": "training"}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; what stands after `--` is handed to the subcommand as it is, as `ctx.obj`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, passed_on = _split_at_double_dash(arguments)
    _command_line(ours)(args=ours, obj=passed_on, prog_name="rheostat")


def _split_at_double_dash(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    border = arguments.index("--")
    return arguments[:border], arguments[border + 1 :]


def _command_line(arguments: Sequence[str]) -> typer.Typer:
    """Only the subcommand that was asked for is imported; asked for help, all of them are."""
    root = typer.Typer(no_args_is_help=True)
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
    except ModuleNotFoundError as exc:
        if needed:
            _refuse(point.name, exc)
        return
    if isinstance(command, typer.Typer):
        root.add_typer(command, name=point.name)
    else:
        root.command(point.name)(command)


def _refuse(name: str, cause: ModuleNotFoundError) -> NoReturn:
    extra = EXTRA_OF.get(name, name)
    typer.echo(
        f"rheostat {name} needs the module {cause.name}, which is not installed; run: pip install 'rheostat[{extra}]'",
        err=True,
    )
    raise SystemExit(2)
