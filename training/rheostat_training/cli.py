"""`rheostat train`: a run from prompts to a served adapter, whole or stage by stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rheostat_training.equilibrate.cli import equilibrate, masks
from rheostat_training.equilibrate.cli import study as study_equilibrate
from rheostat_training.equilibrate.fdc.cli import groups, mix
from rheostat_training.quiet import quiet_libraries
from rheostat_training.refusing import refusing
from rheostat_training.scorer_cli import scorer
from rheostat_training.stage_names import STAGES, StageName

app = typer.Typer(
    help="Make a control adapter from what a model itself says.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

Config = Annotated[Path, typer.Argument(help="YAML file; docs/training.md explains every key.", metavar="CONFIG")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; left out, runs/<the file's name>.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One value in place of the file's: section.key=value.")]

HELP = {
    "generate": "Sample answers to every prompt.",
    "score": "Have two scorers judge every answer.",
    "distil": "Choose and label the answers to learn from.",
    "fit": "Train the adapter.",
    "evaluate": "Measure how well its dials are obeyed, beside other modes.",
    "calibrate": "Find which control value reaches which score.",
}


@app.callback()
def train() -> None:
    """Make a control adapter from what a model itself says."""


@app.command("run")
def run_all(config: Config, out: Out = None, overrides: Set = None) -> None:
    """All seven stages. A second run goes on where the first one was; what is unchanged is skipped."""
    _run(config, out, overrides, until="export")


def _stage_command(name: StageName) -> Callable[..., None]:
    def command(config: Config, out: Out = None, overrides: Set = None) -> None:
        _run(config, out, overrides, until=name)

    command.__doc__ = f"{HELP[name]} Stages before it are made first where they are not there."
    return command


for _name in STAGES[:-1]:
    app.command(_name)(_stage_command(_name))


@app.command()
def export(
    config: Config,
    out: Out = None,
    overrides: Set = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Also write merged/: the base model with the adapter in its weights.")
    ] = False,
) -> None:
    """Write the adapter with its manifest, figures and report.

    Stages before it are made first where they are not there.
    """
    merged = ["export.merge=true"] if merge else []
    _run(config, out, [*(overrides or ()), *merged], until="export")


app.command("scorer")(scorer)
app.add_typer(groups, name="groups")
app.command("mix")(mix)
app.command("equilibrate")(equilibrate)
app.command("masks")(masks)
app.command("study-equilibrate")(study_equilibrate)


@app.command("study")
def run_whole_study(
    config: Annotated[Path, typer.Argument(help="YAML file, like training/configs/study.yaml.", metavar="CONFIG")],
    out: Annotated[Path, typer.Option(help="Folder of the study; a second run goes on.")] = Path("runs/study"),
    seeds: Annotated[
        list[int] | None,
        typer.Option("--seed", help="Only this seed, or these: processes may share a folder, each with its own seeds."),
    ] = None,
) -> None:
    """Compare methods, data and scales: many runs side by side, hours long. Prints the tables."""
    quiet_libraries()
    from rheostat_training.progress import Progress
    from rheostat_training.study.cells import read_study, with_seeds
    from rheostat_training.study.run import run_study
    from rheostat_training.study.table import tables

    with refusing():
        done = run_study(with_seeds(read_study(config), seeds), out, progress=Progress.auto(), say=typer.echo)
        table = tables(done, out)
        if not seeds:
            (out / "tables.md").write_text(table, encoding="utf-8")
    typer.echo(table)


@app.command("config")
def show_config(config: Config, overrides: Set = None) -> None:
    """Print the resolved configuration, every key with its value."""
    import yaml

    quiet_libraries()
    from rheostat_training.config import as_values, read_config

    with refusing():
        typer.echo(yaml.safe_dump(as_values(read_config(config, overrides or ())), sort_keys=False), nl=False)


def _run(config: Path, out: Path | None, overrides: list[str] | None, *, until: StageName) -> None:
    quiet_libraries()
    from rheostat_training.config import read_config
    from rheostat_training.run import run

    folder = out or Path("runs") / config.stem
    with refusing():
        made = run(read_config(config, overrides or ()), folder, until=until, say=typer.echo)
    if "export" in made:
        typer.echo(f"adapter: {folder / 'adapter'}; report: {folder / 'report.html'}")
