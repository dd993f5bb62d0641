"""`rheostat keys`: creates, lists, revokes and rotates the keys of a policy file."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from rheostat_server.callers.edit import PolicyFile
from rheostat_server.callers.file import PolicyError, read_policy
from rheostat_server.callers.schema import KeyPart

app = typer.Typer(no_args_is_help=True, help="Creates, lists, revokes and rotates the keys of a policy file.")

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = re.compile(r"(\d{1,5})([mhdw])")

File = Annotated[Path, typer.Option("--policy", envvar="RHEOSTAT_POLICY", help="The policy file.")]
Name = Annotated[str, typer.Argument(help="Name of the caller.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text)
    if not found:
        raise typer.BadParameter(f"it is {text!r}; it must be a number with m, h, d or w, such as 90d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


Span = Annotated[timedelta | None, typer.Option(parser=_span, metavar="SPAN", help="Such as 90d, 12h or 30m.")]


@app.command()
def create(
    name: Name,
    policy: File,
    envelope: Annotated[str, typer.Option(help="Name of its envelope.")],
    expires_in: Span = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may have the policy read anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Adds a caller and prints its key, this once."""
    expires = datetime.now(UTC) + expires_in if expires_in else None
    with _refusing():
        key = PolicyFile(policy).create(name, envelope, expires=expires, admin=admin)
    _show_key(name, key, as_json=as_json)


@app.command("list")
def list_keys(policy: File, as_json: AsJson = False) -> None:
    """Lists the keys: names, callers, envelopes, and until when they hold. Keys themselves are not known here."""
    with _refusing():
        keys = read_policy(policy)[0].keys
    if as_json:
        typer.echo(json.dumps([_row(key) for key in keys]))
        return
    table = Table("name", "caller", "envelope", "sha256", "expires", "admin")
    for key in keys:
        row = _row(key)
        table.add_row(*(str(value) if value is not None else "" for value in row.values()))
    Console().print(table)


@app.command()
def revoke(name: Name, policy: File) -> None:
    """Takes a caller's keys away. Servers take it in by SIGHUP or POST /v1/admin/policy/reload."""
    with _refusing():
        PolicyFile(policy).revoke(name)
    typer.echo(f"{name} is revoked; {_RELOAD}", err=True)


@app.command()
def rotate(name: Name, policy: File, grace: Span = None, as_json: AsJson = False) -> None:
    """Gives a caller a new key and prints it, this once; with --grace the old one holds for so long still."""
    with _refusing():
        key = PolicyFile(policy).rotate(name, grace=grace or timedelta(0))
    _show_key(name, key, as_json=as_json)


_RELOAD: Final = "have servers read the file anew by SIGHUP or POST /v1/admin/policy/reload"


def _show_key(name: str, key: str, *, as_json: bool) -> None:
    typer.echo(json.dumps({"name": name, "key": key}) if as_json else key)
    typer.echo(f"This is the key of {name}. It is shown this once, and kept as a hash; {_RELOAD}.", err=True)


def _row(key: KeyPart) -> dict[str, str | bool | None]:
    return {
        "name": key.name,
        "caller": key.owner,
        "envelope": key.envelope,
        "sha256": f"{key.sha256[:12]}…",
        "expires": f"{key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else None,
        "admin": key.admin or None,
    }


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except PolicyError as exc:
        typer.echo(f"rheostat keys: {exc}", err=True)
        raise typer.Exit(2) from exc
