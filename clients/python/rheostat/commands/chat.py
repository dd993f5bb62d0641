"""`rheostat chat`: one answer, or a conversation whose dials may be changed between two answers."""

import json
from typing import Annotated, Any

import typer

from rheostat.client import Client
from rheostat.commands.conversation import Conversation
from rheostat.commands.options import (
    Adapter,
    AsJson,
    Candidates,
    Key,
    MaxTokens,
    Model,
    ModeName,
    Seed,
    Temperature,
    Url,
    connected,
    given,
    text_of,
)
from rheostat.commands.spoken import spoken
from rheostat.dials import Dials


def chat(
    text: Annotated[
        str | None,
        typer.Argument(
            help="What to say; - reads it from standard input. After -- it may begin with -. Left out, a conversation "
            "begins."
        ),
    ] = None,
    safety: Annotated[float | None, typer.Option(help="How safe answers must be, from 0 to 1.")] = None,
    helpfulness: Annotated[float | None, typer.Option(help="How helpful answers must be, from 0 to 1.")] = None,
    mode: ModeName = None,
    preset: Annotated[
        str | None, typer.Option(help="Name of a preset. What is said of dials and mode goes before it.")
    ] = None,
    adapter: Adapter = None,
    candidates: Candidates = None,
    model: Model = None,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the answer as it comes.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Answers TEXT at the dials, or holds a conversation. Answers go to standard output, receipts to standard error."""
    with connected("chat", url, key, as_json=as_json) as client:
        options = given(
            dials=Dials(safety, helpfulness), mode=mode, preset=preset, adapter=adapter, candidates=candidates,
            model=model, max_tokens=max_tokens, temperature=temperature, seed=seed,
        )  # fmt: skip
        messages = [{"role": "system", "content": system}] if system else []
        if text is None:
            if as_json:
                raise ValueError("--json is for one answer; give a TEXT, or - for standard input")
            Conversation(client, messages, options, streamed=stream).hold()
        else:
            _once(client, [*messages, {"role": "user", "content": text_of(text)}], options, stream, as_json)


def _once(client: Client, messages: list[dict[str, Any]], options: dict[str, Any], stream: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(client.chat(messages, **options).raw, ensure_ascii=False))
    else:
        spoken(client, messages, options, streamed=stream)
