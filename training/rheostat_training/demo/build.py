"""Builds the demo bundle from nothing, from the tokenizer to the measured adapter.

Read `build` first. Each stage has its own folder, and is skipped when nothing that it depends on has changed.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rheostat_training.config import RunConfig, ScorerFolders
from rheostat_training.demo.asking import held_out
from rheostat_training.demo.base import fit_base
from rheostat_training.demo.bundle import BASE, PAIRS, RECIPE_FILE, SELECTOR, check_out
from rheostat_training.demo.corpus import dialogues
from rheostat_training.demo.labelled import labelled_rows
from rheostat_training.demo.measure import (
    MODES,
    ORACLE,
    Measured,
    in_process,
    measure,
    well_formed_share,
    write_measured,
)
from rheostat_training.demo.recipe import JudgePlan, Recipe
from rheostat_training.demo.selector import fit_selector
from rheostat_training.demo.tokenizer import save_tokenizer, train_tokenizer
from rheostat_training.lora import ADAPTER
from rheostat_training.models import load_base, load_with_adapter
from rheostat_training.progress import Progress
from rheostat_training.resume import rows_digest, write_json
from rheostat_training.run import run
from rheostat_training.score import Judge, ScorerPair
from rheostat_training.scorer_fit import fit_scorer
from rheostat_training.stage import MARKS, Say, StageResult, Work, Workshop
from rheostat_training.work_folder import working_in

WORLD_SAMPLE: Final = 500
RUN: Final = "run"
WRITTEN: Final = ("tokenizer", BASE, *PAIRS, SELECTOR, RUN, "measured")
"""What a build puts into its `work`, in place of what is there by these names."""


@dataclass(frozen=True, slots=True)
class Builder:
    """Runs the stages of one recipe, each of which depends on the world."""

    recipe: Recipe
    shop: Workshop

    @property
    def progress(self) -> Progress:
        return self.shop.progress

    def run(self, name: str, plan: object, before: Mapping[str, StageResult], work: Work) -> StageResult:
        return self.shop.run(name, plan, before, work, world=world_digest())


def build(out: Path, recipe: Recipe, work: Path, *, progress: Progress | None = None, say: Say = print) -> Path:
    """Make every stage that is not there yet, then the bundle in `out`.

    The adapter is made by the run of `rheostat train`, in `work/run`.

    Raises:
        NoBundle: `out` is there and is no bundle, or holds `work`, or lies in one of its stages.
        Busy: another process is at work in `work`.
        NotOurs: `work` holds files of somebody else's by the names of the stages.
    """
    check_out(out, work, (*WRITTEN, MARKS))
    with working_in(work, WRITTEN, what="build", option="--work"):
        return _build(out, recipe, work, progress, say)


def _build(out: Path, recipe: Recipe, work: Path, progress: Progress | None, say: Say) -> Path:
    builder = Builder(recipe, Workshop(work, progress or Progress.auto(), say))
    tokenizer = _tokenizer(builder)
    base = _base(builder, tokenizer)
    scorers = _pair(builder, "scorers", recipe.scorers, tokenizer)
    judges = _pair(builder, "judges", recipe.judges, tokenizer)
    selector = _selector(builder, tokenizer)
    config = _run_config(recipe, base, scorers, judges)
    made = run(config, work / RUN, progress=builder.progress, say=say)
    measured = _measured(builder, base, made["export"], scorers, judges)
    models = {BASE: base, "scorers": scorers, "judges": judges, SELECTOR: selector}
    _bundle(builder, out, {**models, "measured": measured, "export": made["export"]})
    return out


def _run_config(recipe: Recipe, base: StageResult, scorers: StageResult, judges: StageResult) -> RunConfig:
    pairs = [
        ScorerFolders(str(pair.folder / "safety" / "model"), str(pair.folder / "helpfulness" / "model"))
        for pair in (scorers, judges)
    ]
    return replace(
        recipe.run,
        base=replace(recipe.run.base, model=str(base.folder)),
        score=replace(recipe.run.score, scorers=pairs[0]),
        evaluate=replace(recipe.run.evaluate, judges={**recipe.run.evaluate.judges, "judges": pairs[1]}),
    )


def world_digest() -> str:
    """A digest of a sample of the world, which changes when its texts, its policy or its answers do."""
    return rows_digest(dialogues(0, 0, WORLD_SAMPLE))


def _tokenizer(builder: Builder) -> StageResult:
    recipe = builder.recipe

    def work(folder: Path) -> None:
        save_tokenizer(train_tokenizer(recipe.seed, sample=recipe.tokenizer_sample), folder)

    return builder.run("tokenizer", {"sample": recipe.tokenizer_sample, "seed": recipe.seed}, {}, work)


def _base(builder: Builder, tokenizer: StageResult) -> StageResult:
    plan = builder.recipe.base

    def work(folder: Path) -> None:
        fit_base(_load_tokenizer(tokenizer), plan, folder, progress=builder.progress)

    return builder.run("base", asdict(plan), {"tokenizer": tokenizer}, work)


def _pair(builder: Builder, name: str, plan: JudgePlan, tokenizer: StageResult) -> StageResult:
    """Two scorers of one kind; name and seed give each pair data of its own."""

    def work(folder: Path) -> None:
        words = _load_tokenizer(tokenizer)
        for attribute in ("safety", "helpfulness"):
            rows = labelled_rows(attribute, plan.rows, purpose=name, seed=builder.recipe.seed)
            fit_scorer(rows, words, plan.fit, folder / attribute, progress=builder.progress)

    return builder.run(name, asdict(plan), {"tokenizer": tokenizer}, work)


def _selector(builder: Builder, tokenizer: StageResult) -> StageResult:
    """No other stage depends on it: adapters are made, and measured, without it."""
    plan = builder.recipe.selector

    def work(folder: Path) -> None:
        words = _load_tokenizer(tokenizer)
        fit_selector(words, plan, folder, seed=builder.recipe.seed, progress=builder.progress)

    return builder.run(SELECTOR, asdict(plan), {"tokenizer": tokenizer}, work)


def _measured(
    builder: Builder, base: StageResult, adapter: StageResult, scorers: StageResult, judges: StageResult
) -> StageResult:
    """What the run's own evaluation does not tell: refusals, unsafe answers, and the base model alone."""
    plan = builder.recipe.trials

    def work(folder: Path) -> None:
        prompts = held_out(plan.prompts)
        pairs: dict[str, Judge] = {"oracle": ORACLE, "scorers": _load_pair(scorers), "judges": _load_pair(judges)}
        alone = load_base(base.folder)
        dialled = load_with_adapter(base.folder, adapter.folder / ADAPTER)
        measured: list[Measured] = []
        with builder.progress.task("measure", len(MODES), unit="modes") as task:
            for mode in MODES:
                ask = in_process(mode, dialled if mode == "adapter" else alone, plan)
                measured.append(measure(mode, ask, prompts, pairs))
                task.advance(1, note=mode)
        write_measured(measured, well_formed_share(alone, prompts, plan), folder)

    before = {"base": base, "adapter": adapter, "scorers": scorers, "judges": judges}
    return builder.run("measured", asdict(plan), before, work)


def _bundle(builder: Builder, out: Path, stages: Mapping[str, StageResult]) -> None:
    """Copy what ships: models, scorers, figures and the recipe."""
    place = out.resolve()
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(stages[BASE].folder, partial / BASE)
    for pair in PAIRS:
        for attribute in ("safety", "helpfulness"):
            shutil.copytree(stages[pair].folder / attribute / "model", partial / pair / attribute)
    shutil.copytree(stages[SELECTOR].folder / "model", partial / SELECTOR)
    shutil.copytree(stages["export"].folder / ADAPTER, partial / "adapter")
    for name in ("evaluation.json", "evaluation.md"):
        shutil.copyfile(stages["measured"].folder / name, partial / name)
    write_json(partial / RECIPE_FILE, TypeAdapter(Recipe).dump_python(builder.recipe, mode="json"))
    shutil.rmtree(place, ignore_errors=True)
    partial.replace(place)
    builder.shop.say(f"bundle: {out}, {_megabytes(out):.1f} MB")


def _load_tokenizer(tokenizer: StageResult) -> PreTrainedTokenizerFast:
    loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(tokenizer.folder)
    return loaded


def _load_pair(pair: StageResult) -> ScorerPair:
    return ScorerPair.load(pair.folder / "safety" / "model", pair.folder / "helpfulness" / "model")


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
