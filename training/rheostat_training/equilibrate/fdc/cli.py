"""`rheostat train groups` and `rheostat train mix`: prompts sorted by risk, and a training mixture drawn of them."""

from pathlib import Path
from typing import Annotated

import typer

from rheostat_training.equilibrate.fdc.options import BlendBy, By, On
from rheostat_training.quiet import quiet_libraries
from rheostat_training.refusing import refusing

groups = typer.Typer(
    help="Sort prompts by risk: explicit (EHD), implicit (IHD), mixed (MHD) or none.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

Labels = Annotated[list[Path], typer.Argument(help="JSON lines of prompt and group, .gz or plain.", metavar="LABELS")]
ByOption = Annotated[By, typer.Option(help="What tells the groups.")]
Classifier = Annotated[Path | None, typer.Option(help="A classifier's folder, which `groups fit` made.")]
Model = Annotated[str | None, typer.Option(help="Language model that is asked: a folder, a name on the Hub, or demo.")]
Vllm = Annotated[bool, typer.Option("--vllm", help="Run the model in vLLM.")]
Url = Annotated[str | None, typer.Option(help="OpenAI-compatible server to ask, in place of a model here.")]
ServedModel = Annotated[str | None, typer.Option(help="The model's name on that server.")]
KeyVariable = Annotated[str | None, typer.Option(help="Environment variable that holds the server's key.")]
Device = Annotated[On, typer.Option(help="Where a model or classifier here runs.")]
Tries = Annotated[int, typer.Option(min=1, help="How often a model is asked for an answer that fits.")]
NewTokens = Annotated[int | None, typer.Option(min=1, help="The most tokens of an answer; reasoning models need more.")]
Seed = Annotated[int, typer.Option(min=0, help="Of draws and of a model's answers.")]


@groups.command("fit")
def fit(
    labels: Labels,
    out: Annotated[Path, typer.Option(file_okay=False, help="Where classifier and report.json go.")],
    encoder: Annotated[str, typer.Option(help="A sentence encoder: a folder, or a name on the Hub.")],
    benign: Annotated[
        list[Path] | None, typer.Option(exists=True, help="Prompt file of no risk, to learn from too. Repeatable.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Fit a classifier of groups, and measure it on prompts held out."""
    quiet_libraries()
    from rheostat_training.equilibrate.fdc.classifier_fit import GroupFitPlan, fit_groups

    with refusing():
        report = fit_groups(labels, encoder, GroupFitPlan(seed=seed), out, benign=benign or ())
    typer.echo(report.told())


@groups.command("label")
def label(
    prompts: Annotated[str, typer.Argument(help="Prompt file, folder or data set; or demo.", metavar="PROMPTS")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where grouped.jsonl and report.json go.")],
    by: ByOption = By.CLASSIFIER,
    classifier: Classifier = None,
    model: Model = None,
    vllm: Vllm = False,
    url: Url = None,
    served_model: ServedModel = None,
    key_variable: KeyVariable = None,
    device: Device = On.AUTO,
    tries: Tries = 3,
    max_new_tokens: NewTokens = None,
    column: Annotated[str | None, typer.Option(help="Field of the prompts, where it cannot be told.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Draw so many of the prompts.")] = None,
    seed: Seed = 0,
) -> None:
    """Write each prompt with its group. A run that was killed goes on; what gets no label is counted, never guessed."""
    quiet_libraries()
    from rheostat_training.equilibrate.fdc.labellers import AskedModel, labeller_of
    from rheostat_training.equilibrate.fdc.labels import GROUPED_FILE, label_prompts
    from rheostat_training.prompts import PromptSource, read_prompts

    with refusing():
        asked = AskedModel(model, vllm, url, served_model, key_variable, device.value, tries, max_new_tokens, seed)
        labeller = labeller_of(by, classifier, asked, asked.sampler)
        read = read_prompts(PromptSource(prompts, column=column, count=count, seed=seed))
        typer.echo(read.summary())
        left_out = {"bad rows": len(read.bad), "duplicates": read.duplicates}
        report = label_prompts(labeller, read.prompts, out, left_out=left_out)
    counts = ", ".join(f"{group} {number:,}" for group, number in report["counts"].items())
    typer.echo(f"{out / GROUPED_FILE}: {counts}; {report['failures']:,} failed")


def mix(
    grouped: Annotated[
        list[Path],
        typer.Argument(exists=True, help="Files that `groups label` wrote, or of such rows.", metavar="GROUPED"),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where mixture.jsonl and report.json go.")],
    safety: Annotated[int | None, typer.Option(help="So many harmful prompts, EHD : IHD : MHD = 10 : 3 : 1.")] = None,
    budget: Annotated[str | None, typer.Option(help="Or so many of each group: ehd=10000,ihd=3000,mhd=1000.")] = None,
    keep_ratio: Annotated[
        bool, typer.Option("--keep-ratio", help="Where one group is short, draw less of the others too.")
    ] = False,
    general: Annotated[
        list[str] | None,
        typer.Option(help="Prompt file or data set of general prompts; left out, those of group none. Repeatable."),
    ] = None,
    general_count: Annotated[
        int | None, typer.Option(min=0, help="How many general prompts; left out, what the ratios ask for.")
    ] = None,
    look_alikes: Annotated[
        int | None, typer.Option(min=0, help="How many benign prompts that look risky; left out, all.")
    ] = None,
    least_sure: Annotated[float, typer.Option(help="Leave out labels that a classifier was less sure of.")] = 0.0,
    blend: Annotated[BlendBy | None, typer.Option(help="Blend the MHD that is missing; left out, it is short.")] = None,
    by: ByOption = By.JUDGE,
    classifier: Classifier = None,
    model: Model = None,
    vllm: Vllm = False,
    url: Url = None,
    served_model: ServedModel = None,
    key_variable: KeyVariable = None,
    device: Device = On.AUTO,
    tries: Tries = 3,
    max_new_tokens: NewTokens = None,
    seed: Seed = 0,
) -> None:
    """Draw a training mixture from labelled prompts, and say what was short.

    Blends are made by the model that the options name, and kept where what `--by` names finds them mixed.
    """
    quiet_libraries()
    from rheostat_training.equilibrate.fdc.budget import PAPER_TOTAL, Budget
    from rheostat_training.equilibrate.fdc.labellers import AskedModel
    from rheostat_training.equilibrate.fdc.mix import MixPlan
    from rheostat_training.equilibrate.fdc.mix_files import Blending, mix_files

    with refusing():
        if safety is not None and budget is not None:
            raise ValueError("--safety and --budget both say how many harmful prompts; give one of them")
        counts = Budget.paper(PAPER_TOTAL if safety is None else safety) if budget is None else Budget.parse(budget)
        plan = MixPlan(counts, general_count, look_alikes, keep_ratio, least_sure, seed)
        if blend is None and (unused := _given(model=model, url=url, served_model=served_model, classifier=classifier)):
            raise ValueError(f"--{unused} is given, and nothing is blended by it; give --blend, or leave it out")
        asked = AskedModel(model, vllm, url, served_model, key_variable, device.value, tries, max_new_tokens, seed)
        blending = None if blend is None else Blending(blend, by, classifier, asked)
        mixture = mix_files(grouped, general, plan, out, blending=blending)
    for line in mixture.told():
        typer.echo(line)


def _given(**options: object) -> str | None:
    """The first option that was given, as it is written."""
    return next((name.replace("_", "-") for name, value in options.items() if value is not None), None)
