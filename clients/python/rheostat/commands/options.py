"""Options of the commands, and how they tell what went wrong."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from rheostat.client import Client
from rheostat.commands.terminal import plain
from rheostat.dials import Mode
from rheostat.errors import RheostatError

WRONG_USE = 2
FAILED = 1

Url = Annotated[
    str | None,
    typer.Option(envvar="RHEOSTAT_BASE_URL", help="Address of the server. Left out, http://127.0.0.1:8000."),
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="RHEOSTAT_API_KEY", help="Key of the caller. The environment is the better place: others see arguments."
    ),
]
Model = Annotated[str | None, typer.Option(help="Left out, the first model of the server.")]
ModeName = Annotated[Mode | None, typer.Option("--mode", help="Left out, the server's default for the caller.")]
Adapter = Annotated[str | None, typer.Option(help="Name of a control adapter.")]
Candidates = Annotated[int | None, typer.Option(help="How many answers to choose from, in the modes that rerank.")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens of an answer.")]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token each time.")]
Seed = Annotated[int | None, typer.Option(help="The same seed draws the same answer, where the engine can.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's JSON, or an error as JSON.")]


@contextmanager
def connected(command: str, url: str | None, key: str | None, *, as_json: bool = False) -> Iterator[Client]:
    """A client; what goes wrong in the block is told in one line, and the status is 1, or 2 for wrong use.

    With `as_json` that line is JSON and goes to standard output, where a program looks for the answer.
    """
    try:
        with _pauses_told(command), Client(url, key) as client:
            yield client
    except RheostatError as exc:
        _tell_error(command, exc, as_json)
        raise typer.Exit(FAILED) from exc
    except ValueError as exc:
        _tell_error(command, RheostatError(str(exc)), as_json)
        raise typer.Exit(WRONG_USE) from exc


class _Telling(logging.Handler):
    """Tells a user what the client logs."""

    def __init__(self, command: str) -> None:
        super().__init__(logging.INFO)
        self._command = command

    def emit(self, record: logging.LogRecord) -> None:
        tell(self._command, plain(record.getMessage()))


@contextmanager
def _pauses_told(command: str) -> Iterator[None]:
    """So that nobody waits for a server without room in silence."""
    logger, telling = logging.getLogger("rheostat"), _Telling(command)
    logger.setLevel(logging.INFO)
    logger.addHandler(telling)
    try:
        yield
    finally:
        logger.removeHandler(telling)


def _tell_error(command: str, error: RheostatError, as_json: bool) -> None:
    if not as_json:
        tell(command, one_line(error))
        return
    parts = {
        "message": error.message,
        "code": error.code,
        "param": error.param,
        "status": error.status,
        "request_id": error.request_id,
    }
    typer.echo(json.dumps({"error": parts}, ensure_ascii=False))


def one_line(error: RheostatError) -> str:
    """Its code, the server's words, and what helps to find it in the server's log."""
    known = {"status": error.status, "param": error.param, "request": error.request_id}
    told = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
    parts = (
        f"{error.code}: " if error.code else "",
        plain(" ".join(error.message.split())),
        f" ({told})" if told else "",
    )
    return "".join(parts)


def tell(command: str, message: str) -> None:
    typer.echo(f"rheostat {command}: {message}", err=True)


def text_of(argument: str) -> str:
    """The argument, or for `-` what stands on standard input."""
    return sys.stdin.read().rstrip("\n") if argument == "-" else argument


def given(**options: Any) -> dict[str, Any]:
    """The options that were used."""
    return {name: value for name, value in options.items() if value is not None}


def levels(text: str | None, name: str) -> Sequence[float] | None:
    """`0,0.5,1` as numbers. Raises ValueError for what is none."""
    if text is None:
        return None
    try:
        return [float(level) for level in text.split(",")]
    except ValueError as exc:
        told = f"--{name} is {text!r}; it must be levels from 0 to 1 with commas between, such as 0,0.5,1"
        raise ValueError(told) from exc
