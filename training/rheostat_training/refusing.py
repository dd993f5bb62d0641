"""How the commands tell what was refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def refusing() -> Iterator[None]:
    """What the user, the machine or a model's files are at fault for, told without a trace; the exit status is 1."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(1) from exc
