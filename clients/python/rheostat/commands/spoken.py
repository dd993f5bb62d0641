"""An answer on the terminal, as it comes or whole, with its receipt below."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from rheostat.answers import Answer
from rheostat.client import Client
from rheostat.commands.terminal import in_one_line, plain


def spoken(
    client: Client, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], *, streamed: bool
) -> Answer:
    """The text goes to standard output, so that it can be kept alone, and the receipt to standard error."""
    answer = _streamed(client, messages, options) if streamed else _whole(client, messages, options)
    Console(stderr=True, highlight=False).print(in_one_line(answer.receipt), style="dim", markup=False, soft_wrap=True)
    return answer


def _streamed(client: Client, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Answer:
    with client.stream(messages, **options) as pieces:
        try:
            for piece in pieces:
                print(plain(piece), end="", flush=True)
        finally:
            print(flush=True)
        return pieces.answer


def _whole(client: Client, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Answer:
    answer = client.chat(messages, **options)
    print(plain(answer.content or ""), flush=True)
    return answer
