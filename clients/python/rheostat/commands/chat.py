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
    refuse,
    text_of,
)
from rheostat.commands.spoken import spoken


def chat(
    text: Annotated[
        str | None, typer.Argument(help="What to say; - reads it from standard input. Left out, a conversation begins.")
    ] = None,
    safety: Annotated[float | None, typer.Option(help="How safe answers must be, from 0 to 1.")] = None,
    helpfulness: Annotated[float | None, typer.Option(help="How helpful answers must be, from 0 to 1.")] = None,
    mode: ModeName = None,
    preset: Annotated[str | None, typer.Option(help="Name of a preset, in the place of dials.")] = None,
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
    options = given(
        preset=preset, adapter=adapter, candidates=candidates, model=model, max_tokens=max_tokens,
        temperature=temperature, seed=seed,
    )  # fmt: skip
    with connected("chat", url, key) as client:
        client = client.with_dials(safety=safety, helpfulness=helpfulness, mode=mode)
        messages = [{"role": "system", "content": system}] if system else []
        if text is None:
            if as_json:
                refuse("chat", "--json is for one answer; give a TEXT, or - for standard input")
            Conversation(client, messages, options, streamed=stream).hold()
        else:
            _once(client, [*messages, {"role": "user", "content": text_of(text)}], options, stream, as_json)


def _once(client: Client, messages: list[dict[str, Any]], options: dict[str, Any], stream: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(client.chat(messages, **options).raw, ensure_ascii=False))
    else:
        spoken(client, messages, options, streamed=stream)
