"""`rheostat train equilibrate`, `masks` and `study-equilibrate`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rheostat_training.quiet import quiet_libraries
from rheostat_training.refusing import refusing

RULES = ("segment", "random", "none")
TURNS = "How far a reward must be from the baseline to turn a segment; left out, as the run."


def equilibrate(
    config: Annotated[Path, typer.Argument(help="YAML file; docs/equilibrate.md explains its keys.", metavar="CONFIG")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; left out, runs/<the file's name>.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="One value in place of the file's: section.key=value.")
    ] = None,
) -> None:
    """Train a safety method and measure it: safe rate by group, over-refusal, helpfulness.

    A second run goes on where the first one was; what is unchanged is skipped.
    """
    quiet_libraries()
    from rheostat_training.equilibrate.config import read_equilibrate
    from rheostat_training.equilibrate.run import run

    folder = out or Path("runs") / config.stem
    with refusing():
        run(read_equilibrate(config, overrides or ()), folder, say=typer.echo)
    typer.echo(f"blend: {folder / 'blend'}; figures: {folder / 'figures.json'}")


def masks(
    run: Annotated[Path, typer.Argument(help="Folder of a run of a masked method.", metavar="RUN")],
    html: Annotated[Path | None, typer.Option(help="Write a page that colours kept and masked tokens.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="How many pairs the page shows.")] = 40,
    rule: Annotated[str | None, typer.Option(help=f"One of {', '.join(RULES)}; left out, the run's.")] = None,
    delta: Annotated[float | None, typer.Option(min=0, help=TURNS)] = None,
    baseline: Annotated[str | None, typer.Option(help="zero, or batch: the mean of all rewards.")] = None,
) -> None:
    """Show which tokens of a run's pairs its masks keep, or those of another rule would."""
    quiet_libraries()
    from rheostat_training.equilibrate.ama.mask_page import REWARDS, RewardedPair, masked_pairs, render_masks
    from rheostat_training.equilibrate.ama.masks import Masking
    from rheostat_training.equilibrate.config import read_equilibrate
    from rheostat_training.rows import read_rows

    with refusing():
        own = (
            read_equilibrate(run / "config.yaml").fit.masking if (run / "config.yaml").exists() else Masking("segment")
        )
        given = {"rule": rule, "delta": delta, "baseline": baseline}
        masking = replace(own, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        files = sorted(run.glob(f"fit/*/{REWARDS}"))
        if not files:
            raise ValueError(f"{run} holds no {REWARDS} of its tokens; give the folder of a run of method adpo or arj")
        rows = [row for file in files for row in read_rows(file, RewardedPair)]
        found = masked_pairs(rows, masking, shown=pairs)
        if html:
            html.write_text(render_masks(found, masking), encoding="utf-8")
    typer.echo(
        f"{found.of} pairs; kept of chosen answers {found.chosen_share:.3f}, of rejected {found.rejected_share:.3f}; "
        f"kept whole {found.whole_share:.3f} of the answers"
    )
    if html:
        typer.echo(f"page: {html}")


def study(
    config: Annotated[
        Path, typer.Argument(help="YAML file, like training/configs/study-equilibrate.yaml.", metavar="CONFIG")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; a second run goes on.")] = Path(
        "runs/study-equilibrate"
    ),
    seeds: Annotated[
        list[int] | None,
        typer.Option("--seed", help="Only this seed, or these: processes may share a folder, each with its own seeds."),
    ] = None,
    groups: Annotated[list[str] | None, typer.Option("--group", help="Only the cells of this group, or these.")] = None,
) -> None:
    """Compare safety methods, mixtures and masks: many runs side by side, hours long.

    Prints the tables, and writes them with their pictures: tables.md, plane.png, scaling.png.
    """
    quiet_libraries()
    from rheostat_training.equilibrate.study.plan import only, read_study, run_study
    from rheostat_training.equilibrate.study.report import plane, rows_of, scaling, table
    from rheostat_training.progress import Progress

    with refusing():
        done = run_study(only(read_study(config), seeds, groups), out, progress=Progress.auto(), say=typer.echo)
        rows = rows_of(done, out)
        told = table(rows)
        if not seeds and not groups:
            (out / "tables.md").write_text(told, encoding="utf-8")
            (out / "plane.png").write_bytes(plane(rows))
            (out / "scaling.png").write_bytes(scaling(rows))
    typer.echo(told)
