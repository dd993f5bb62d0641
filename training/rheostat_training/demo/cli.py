"""`rheostat demo`: build the bundle, and measure what it does."""

from pathlib import Path
from typing import Annotated

import typer

from rheostat_server.demo import bundle_folder
from rheostat_training.quiet import quiet_libraries
from rheostat_training.refusing import refusing

app = typer.Typer(
    help="The demo world: a small model, its scorers and its adapter, made from nothing.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

OUT = Path("build/demo-bundle")
WORK = Path("build/demo")


@app.callback()
def demo() -> None:
    """The demo world: a small model, its scorers and its adapter, made from nothing."""


@app.command("build")
def build_bundle(
    out: Annotated[Path, typer.Option(help="Folder of the bundle; only a bundle is replaced.")] = OUT,
    work: Annotated[Path, typer.Option(help="Folder of the stages; a second run goes on from what is there.")] = WORK,
    seed: Annotated[int, typer.Option(help="Seed of every stage.")] = 0,
    fast: Annotated[bool, typer.Option("--fast", help="A miniature of every stage, in seconds.")] = False,
) -> None:
    """Make the demo bundle; aimed at less than ninety minutes on two cores."""
    quiet_libraries()
    from rheostat_training.demo import recipe
    from rheostat_training.demo.build import build

    with refusing():
        build(out, recipe.fast(seed) if fast else recipe.full(seed), work, say=typer.echo)


@app.command("evaluate")
def evaluate_bundle(
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of a bundle, whose scorers judge beside the oracle; left out, ours.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A running server; left out, the bundle's models are loaded.")] = None,
    model: Annotated[str, typer.Option(help="The model's name on that server.")] = "demo",
    prompts: Annotated[int, typer.Option(help="How many held-out prompts.", min=2)] = 300,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="A mode; may be given more than once. `rerank` and those with it are a server's alone."),
    ] = None,
    candidates: Annotated[int | None, typer.Option(help="Candidates in the modes that rerank.", min=1)] = None,
) -> None:
    """Print how well the dials are obeyed on held-out prompts; left out, by adapter, by prompt and without control."""
    quiet_libraries()
    from rheostat_training.demo.judging import evaluate

    with refusing():
        found = evaluate(
            bundle or bundle_folder(), url=url, model=model, prompts=prompts, modes=mode, candidates=candidates
        )
        typer.echo(found)
