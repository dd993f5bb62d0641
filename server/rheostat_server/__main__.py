"""`rheostat serve`: reads the command line into Settings and starts the server that they ask for."""

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from rheostat_server.errors import CannotStart, RheostatError
from rheostat_server.log import configure_logging
from rheostat_server.serve import start
from rheostat_server.settings import EngineName, Settings


def serve(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="Folder or hub name of the base model; left out, the bundled demo.")
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(help="Left out: remote with --upstream, vllm with MODEL, embedded with neither."),
    ] = None,
    upstream: Annotated[str | None, typer.Option(help="Base URL of an OpenAI-compatible server.")] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="Folder of a control adapter; may be given more than once.")
    ] = None,
    blend: Annotated[
        list[Path] | None, typer.Option(help="Folder of a blend of adapters; may be given more than once.")
    ] = None,
    scorers: Annotated[Path | None, typer.Option(help="YAML file of the scorers to rerank by.")] = None,
    policy: Annotated[Path | None, typer.Option(help="YAML file of callers: keys, and the envelope of each.")] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Listen beyond this machine without a policy file.")
    ] = False,
    served_model_name: Annotated[str | None, typer.Option(help="Name of the base model on the wire.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: 8000]")] = None,
) -> None:
    """Serves a model with its dials, OpenAI-compatible. What stands after -- goes to vLLM.

    Every other setting is an environment variable, RHEOSTAT_ and its name; see docs/settings.md.
    """
    given: dict[str, Any] = {
        "model": model,
        "engine": engine,
        "upstream": upstream,
        "adapters": adapter or None,
        "blends": blend or None,
        "scorers": scorers,
        "policy": policy,
        "allow_anonymous": allow_anonymous or None,
        "served_model_name": served_model_name,
        "host": host,
        "port": port,
    }
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        configure_logging(settings.log_level)
        start(settings, engine_flags=context.obj or [])
    except ValidationError as exc:
        _refuse("; ".join(f"{_name(error)} is {error['input']!r}: {error['msg'].lower()}" for error in exc.errors()))
    except SettingsError as exc:
        _refuse(f"{exc}; a list is written as JSON, like '[\"/models/control\"]'")
    except (CannotStart, RheostatError) as exc:
        _refuse(str(exc))


def _name(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])


def _refuse(reason: str) -> NoReturn:
    typer.echo(f"rheostat serve: {reason}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(serve)
