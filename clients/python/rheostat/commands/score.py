"""`rheostat score`: what the server's scorers say of an answer that is given."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rheostat.answers import Judgement
from rheostat.commands.options import AsJson, Key, Url, connected, text_of
from rheostat.commands.terminal import level_in_words


def score(
    text: Annotated[
        str, typer.Argument(help="What was asked; - reads it from standard input. After -- it may begin with -.")
    ],
    response: Annotated[str, typer.Option(help="The answer to be judged; - reads it from standard input.")] = "-",
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Has the server's scorers judge an answer to TEXT. Nothing is generated."""
    with connected("score", url, key, as_json=as_json) as client:
        if text == response == "-":
            raise ValueError("standard input holds one text; give TEXT or --response in words")
        judgement = client.score(text_of(text), text_of(response))
        if as_json:
            typer.echo(json.dumps(judgement.raw, ensure_ascii=False))
        else:
            _show(judgement)


def _show(judgement: Judgement) -> None:
    console = Console(highlight=False)
    table = Table("dial", "level")
    table.add_row("safety", level_in_words(judgement.scores.safety))
    table.add_row("helpfulness", level_in_words(judgement.scores.helpfulness))
    console.print(table)
    by = ", ".join(f"{scorer.name} ({scorer.kind})" for scorer in judgement.scorers)
    without = f"; without {', '.join(judgement.left_out)}" if judgement.left_out else ""
    console.print(f"by {by}{without}", style="dim", markup=False)
