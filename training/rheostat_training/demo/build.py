"""Builds the demo bundle from nothing, from the tokenizer to the measured adapter.

Read `build` first. Each stage has its own folder, and is skipped when nothing that it depends on has changed.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rheostat_server.contract.dials import DIAL_NAMES, Dials
from rheostat_server.contract.manifest import EvaluationRow
from rheostat_training.demo.asking import draw_prompts, plain_requests, worded_requests
from rheostat_training.demo.base import fit_base
from rheostat_training.demo.confidence import least_probabilities
from rheostat_training.demo.corpus import dialogues
from rheostat_training.demo.labelled import labelled_rows
from rheostat_training.demo.measure import (
    MODES,
    ORACLE,
    Measured,
    held_out,
    in_process,
    measure,
    well_formed_share,
    write_measured,
)
from rheostat_training.demo.recipe import JudgePlan, Recipe
from rheostat_training.demo.stage import Stage, StageResult, run_stage
from rheostat_training.demo.tokenizer import save_tokenizer, train_tokenizer
from rheostat_training.distil import distil
from rheostat_training.evaluate import Evaluation
from rheostat_training.export import ExportFacts, evaluation_rows, export_adapter
from rheostat_training.fit import fit
from rheostat_training.generate import generate
from rheostat_training.models import load_base, load_with_adapter
from rheostat_training.progress import Progress
from rheostat_training.resume import rows_digest, write_json
from rheostat_training.rows import Example, Prompt, Sample, Scored, read_rows, write_rows
from rheostat_training.score import Judge, ScorerPair, score
from rheostat_training.scorer_fit import fit_scorer

ADAPTER_NAME: Final = "demo-control"
BASE_NAME: Final = "demo"
LICENCE: Final = "Apache-2.0"
WORLD_SAMPLE: Final = 500
MANIFEST_FACTS_FILE: Final = "manifest_facts.json"

Say = Callable[[str], None]


@dataclass(slots=True)
class Builder:
    """Runs the stages of one recipe, each knowing the digests of those before it."""

    recipe: Recipe
    work: Path
    progress: Progress
    say: Say

    def run(
        self, name: str, plan: object, before: Mapping[str, StageResult], work: Callable[[Path], object]
    ) -> StageResult:
        inputs = {"plan": plan, "world": world_digest(), **{stage: result.digest for stage, result in before.items()}}
        started = time.monotonic()
        result = run_stage(Stage(name, inputs, work), self.work)
        self.say(f"{name}: {'unchanged' if result.skipped else f'done in {time.monotonic() - started:.0f} s'}")
        return result


def build(out: Path, recipe: Recipe, work: Path, *, progress: Progress | None = None, say: Say = print) -> Path:
    """Make every stage that is not there yet, then the bundle in `out`."""
    builder = Builder(recipe, work, progress or Progress.auto(), say)
    tokenizer = _tokenizer(builder)
    base = _base(builder, tokenizer)
    scorers = _pair(builder, "scorers", recipe.scorers, tokenizer)
    asked = _asked(builder, base)
    trusted = _trusted(builder, base, asked)
    scored = _scored(builder, trusted, scorers)
    examples = _distilled(builder, scored)
    fitted = _fitted(builder, base, examples)
    judges = _pair(builder, "judges", recipe.judges, tokenizer)
    measured = _measured(builder, base, fitted, scorers, judges)
    stages = {"base": base, "scorers": scorers, "judges": judges, "examples": examples}
    _bundle(builder, out, stages | {"fitted": fitted, "measured": measured})
    return out


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


def _asked(builder: Builder, base: StageResult) -> StageResult:
    plan, seed = builder.recipe.self_plan, builder.recipe.seed

    def work(folder: Path) -> None:
        loaded = load_base(base.folder)
        prompts = _training_prompts(builder)
        generate(loaded, plain_requests(prompts), plan.sampling, folder / "plain", progress=builder.progress)
        worded = worded_requests(prompts, plan.wishes, seed)
        generate(loaded, worded, plan.worded_sampling, folder / "worded", progress=builder.progress)

    return builder.run("asked", asdict(plan) | {"seed": seed}, {"base": base}, work)


def _trusted(builder: Builder, base: StageResult, asked: StageResult) -> StageResult:
    plan = builder.recipe.trust

    def work(folder: Path) -> None:
        files = (asked.folder / part / "samples.jsonl" for part in ("plain", "worded"))
        samples = [row for file in files for row in read_rows(file, Sample) if row.finished]
        loaded, prompts = load_base(base.folder), _training_prompts(builder)
        least = least_probabilities(loaded, prompts, samples, skip=plan.skip, progress=builder.progress)
        kept = (row for row, value in zip(samples, least, strict=True) if value >= plan.least)
        write_rows(folder / "samples.jsonl", kept)

    return builder.run("trusted", asdict(plan), {"base": base, "asked": asked}, work)


def _scored(builder: Builder, trusted: StageResult, scorers: StageResult) -> StageResult:
    def work(folder: Path) -> None:
        samples = read_rows(trusted.folder / "samples.jsonl", Sample)
        judge = _load_pair(scorers)
        prompts = _training_prompts(builder)
        score(judge, prompts, samples, folder, judge_name=scorers.digest, progress=builder.progress)

    return builder.run("scored", {}, {"trusted": trusted, "scorers": scorers}, work)


def _distilled(builder: Builder, scored: StageResult) -> StageResult:
    plan = builder.recipe.distil

    def work(folder: Path) -> None:
        found = distil(list(read_rows(scored.folder / "scored.jsonl", Scored)), plan)
        write_rows(folder / "examples.jsonl", found.examples)
        write_json(folder / "counts.json", _counts(found.counts))

    return builder.run("distilled", asdict(plan), {"scored": scored}, work)


def _fitted(builder: Builder, base: StageResult, examples: StageResult) -> StageResult:
    plan = builder.recipe.fit

    def work(folder: Path) -> None:
        rows = list(read_rows(examples.folder / "examples.jsonl", Example))
        prompts = _training_prompts(builder)
        loaded = load_base(base.folder)
        fit(loaded, prompts, rows, plan, folder, base_name=BASE_NAME, progress=builder.progress)

    return builder.run("fitted", asdict(plan), {"base": base, "examples": examples}, work)


def _measured(
    builder: Builder, base: StageResult, fitted: StageResult, scorers: StageResult, judges: StageResult
) -> StageResult:
    plan = builder.recipe.trials

    def work(folder: Path) -> None:
        prompts = held_out(plan.prompts)
        pairs: dict[str, Judge] = {"oracle": ORACLE, "scorers": _load_pair(scorers), "judges": _load_pair(judges)}
        alone = load_base(base.folder)
        dialled = load_with_adapter(base.folder, fitted.folder / "adapter")
        measured: list[Measured] = []
        with builder.progress.task("measure", len(MODES), unit="modes") as task:
            for mode in MODES:
                ask = in_process(mode, dialled if mode == "adapter" else alone, plan)
                measured.append(measure(mode, ask, prompts, pairs))
                task.advance(1, note=mode)
        write_measured(measured, well_formed_share(alone, prompts, plan), folder)
        _write_manifest_facts(measured[0].by_judge, folder)

    before = {"base": base, "fitted": fitted, "scorers": scorers, "judges": judges}
    return builder.run("measured", asdict(plan), before, work)


def _bundle(builder: Builder, out: Path, stages: Mapping[str, StageResult]) -> None:
    """Copy what ships: models, scorers, figures and the recipe."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(stages["base"].folder, partial / "base")
    for pair in ("scorers", "judges"):
        for attribute in ("safety", "helpfulness"):
            shutil.copytree(stages[pair].folder / attribute / "model", partial / pair / attribute)
    _export(builder, stages, partial / "adapter")
    for name in ("evaluation.json", "evaluation.md"):
        shutil.copyfile(stages["measured"].folder / name, partial / name)
    write_json(partial / "recipe.json", asdict(builder.recipe))
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    builder.say(f"bundle: {out}, {_megabytes(out):.1f} MB")


def _export(builder: Builder, stages: Mapping[str, StageResult], out: Path) -> None:
    fit_plan = builder.recipe.fit
    levels = [level / (builder.recipe.distil.levels - 1) for level in range(builder.recipe.distil.levels)]
    measured = json.loads((stages["measured"].folder / MANIFEST_FACTS_FILE).read_text())
    facts = ExportFacts(
        name=ADAPTER_NAME,
        base_name=BASE_NAME,
        method=f"moec+{fit_plan.loss}",
        levels={"safety": levels, "helpfulness": levels},
        data_digests={"examples": stages["examples"].digest},
        licence=LICENCE,
        settings=asdict(fit_plan),
        attainable=measured["attainable"],
        evaluation=[EvaluationRow.model_validate(row) for row in measured["evaluation"]],
    )
    export_adapter(stages["fitted"].folder / "adapter", stages["base"].folder, out, facts)


def _write_manifest_facts(by_judge: Mapping[str, Evaluation], folder: Path) -> None:
    """Every judge's figures, and the range of each dial by the pair that no training saw."""
    rows = [row for judge, found in by_judge.items() for row in evaluation_rows(found, mode="adapter", judge=judge)]
    ranges = {dial: by_judge["judges"].attainable(dial) for dial in DIAL_NAMES}
    write_json(folder / MANIFEST_FACTS_FILE, {"evaluation": [row.model_dump() for row in rows], "attainable": ranges})


def _training_prompts(builder: Builder) -> dict[str, Prompt]:
    return draw_prompts(builder.recipe.self_plan.prompts, builder.recipe.seed)


def _load_tokenizer(tokenizer: StageResult) -> PreTrainedTokenizerFast:
    loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(tokenizer.folder)
    return loaded


def _load_pair(pair: StageResult) -> ScorerPair:
    return ScorerPair.load(pair.folder / "safety" / "model", pair.folder / "helpfulness" / "model")


def _counts(counts: Mapping[Dials, int]) -> dict[str, int]:
    return {f"safety {dials.safety:.2f}, helpfulness {dials.helpfulness:.2f}": count for dials, count in counts.items()}


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
