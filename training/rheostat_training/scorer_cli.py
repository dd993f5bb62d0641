"""`rheostat train scorer`: a scorer of real text from files of human labels."""

from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT_HOLD_OUT = {"refusal": "model,prompt", "preference": "prompt"}

HOLD_OUT_HELP = "model, prompt, or both with a comma between; left out, " + ", ".join(
    f"{held_out} for {kind}" for kind, held_out in DEFAULT_HOLD_OUT.items()
)


def scorer(
    data: Annotated[list[Path], typer.Option(exists=True, dir_okay=False, help="JSON lines of labels, .gz or plain.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where scorer, report.json and report.md go.")],
    encoder: Annotated[str, typer.Option(help="A sentence encoder: a folder, or a name on the Hub.")],
    kind: Annotated[Literal["refusal", "preference"], typer.Option(help="What the labels are of.")] = "refusal",
    hold_out: Annotated[str | None, typer.Option(help=HOLD_OUT_HELP)] = None,
    seed: Annotated[int, typer.Option(help="Of the parts that prompts are held out in.")] = 0,
) -> None:
    """Trains a refusal judge, or a preference scorer, and says what it is worth on rows held out."""
    from rheostat_training.scorers.hold_out import hold_outs
    from rheostat_training.scorers.train import TextScorerPlan, train_text_scorer

    try:
        held_out = hold_outs(DEFAULT_HOLD_OUT[kind] if hold_out is None else hold_out)
        train_text_scorer(data, encoder, TextScorerPlan(kind, held_out, seed=seed), out)
        report = (out / "report.md").read_text()
    except (ValueError, OSError) as exc:
        raise typer.BadParameter(str(exc)) from exc
    typer.echo(report)
