"""The `rheostat` command; what is installed brings its subcommands by the entry points `rheostat.commands`."""

import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

TAKES_FLAGS: Final = "serve"
CLI: Final = "cli"
EXTRA_OF: Final[Mapping[str, str]] = {"serve": "embedded", "keys": "server", "demo": "training", "train": "training"}
"""By command, the extra that brings its packages; every other command needs those of the command line alone."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line.

    What stands after `--` is handed to `serve` as it is, as `ctx.obj`. To the other commands it is an argument, which
    may begin with a dash.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, passed_on = _split_at_double_dash(arguments) if arguments[:1] == [TAKES_FLAGS] else (arguments, [])
    try:
        from rheostat.command_line import command_line

        command_line(ours)(args=ours, obj=passed_on, prog_name="rheostat")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("rheostat"):
            raise
        named = ours[0] if ours and ours[0] in EXTRA_OF else ""
        asked = " ".join(["rheostat", *ours[:1]])
        _refuse(f"{asked} needs the module {exc.name}, which is not installed; run: {_installing(named)}")


def _split_at_double_dash(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    border = arguments.index("--")
    return arguments[:border], arguments[border + 1 :]


def _installing(command: str) -> str:
    return f"pip install 'rheostat[{EXTRA_OF.get(command, CLI)}]'"


def _refuse(reason: str) -> NoReturn:
    print(reason, file=sys.stderr)
    raise SystemExit(2)
