"""A whole run: prompts in, a served adapter with measured and calibrated dials out. Read `run` first.

Each stage has its own folder, and is skipped when nothing that it depends on has changed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from rheostat_server.contract.calibration import Calibration
from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_server.contract.wordings import default_wordings
from rheostat_training.asking import Asker
from rheostat_training.calibrate import Checked, Counting, NothingToCalibrate, measure_checks, measure_curves
from rheostat_training.config import RunConfig, as_values, write_config
from rheostat_training.crew import Crew
from rheostat_training.distil import distil
from rheostat_training.evaluate import (
    FIGURES_FILE,
    Evaluation,
    Trial,
    evaluate,
    grid,
    requests_for,
    trials,
    write_evaluations,
)
from rheostat_training.finish import EVALUATION_FILE, MERGED, finish
from rheostat_training.fit import FitReport, fit
from rheostat_training.generate import generate
from rheostat_training.limits import SEEDS
from rheostat_training.lora import ADAPTER
from rheostat_training.materials import Materials
from rheostat_training.models import load_base, load_with_adapter
from rheostat_training.preflight import check_launched, check_run
from rheostat_training.progress import Progress
from rheostat_training.publish import publish, withdraw
from rheostat_training.reinforce import reinforce
from rheostat_training.report.write import FIGURES_FOLDER, REPORT_FILE, TABLE_FILE
from rheostat_training.resume import rows_digest, write_json, write_value
from rheostat_training.rows import Example, Prompt, Request, Sample, Scored, read_rows, write_rows
from rheostat_training.score import ShownJudge, score
from rheostat_training.sources import sampler_of
from rheostat_training.stage import Say, StageResult, Workshop
from rheostat_training.stage_names import STAGES, StageName
from rheostat_training.worded import worded_requests
from rheostat_training.work_folder import working_in

CALIBRATED_MODES: Final = ("adapter", "prompt")

WRITTEN: Final = (*STAGES, ADAPTER, MERGED, "config.yaml", EVALUATION_FILE, REPORT_FILE, TABLE_FILE, FIGURES_FOLDER)
"""What a run puts into its folder, in place of what is there by these names."""

Done = dict[str, StageResult]


def run(
    config: RunConfig, out: Path, *, until: StageName = "export", progress: Progress | None = None, say: Say = print
) -> Done:
    """Makes every stage up to `until` that is not there yet.

    After the last, `out` holds `adapter/`, `evaluation.json` and `report.html`. A run that was killed goes on where it
    was, and ends as if it never had been.

    Raises:
        Busy: another process is at work in `out`.
        NotOurs: `out` holds files of somebody else's by the names that a run writes.
        BadConfig: something that the configuration names cannot be found, or a stage is bound to fail.
    """
    crew = Crew()
    check_launched(config, crew, until)
    if not crew.first:
        return _follow(crew, config, out)
    with crew.leading(), working_in(out, WRITTEN, what="run", option="--out"):
        shop = Workshop(out, progress or Progress.auto(), say)
        materials = Materials(config, say, sharded=crew.sharded)
        check_run(config, materials, until)
        write_config(as_values(config), out / "config.yaml")
        return _Run(config, shop, materials, crew).until(until)


def _follow(crew: Crew, config: RunConfig, out: Path) -> Done:
    """The part of a process that is not the first of its launch: it has none but in the fit."""
    materials = Materials(config, say=lambda line: None, sharded=crew.sharded)
    while crew.hear() == "fit":
        _fit(config, materials, out / "distil", out / "fit" / "fit", Progress.silent())
        materials.release()
    return {}


def _fit(config: RunConfig, materials: Materials, distilled: Path, out: Path, progress: Progress) -> FitReport:
    """The fit alone, alike in every process of a launch."""
    return fit(
        materials.base_to_fit,
        materials.training_prompts,
        list(read_rows(distilled / "examples.jsonl", Example)),
        config.fit,
        out,
        base_name=materials.base_name,
        report_to=config.report_to,
        progress=progress,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """The stages, each a method that takes those before it."""

    config: RunConfig
    shop: Workshop
    materials: Materials
    crew: Crew

    def until(self, last: StageName) -> Done:
        stages = {
            "generate": self.generate,
            "score": self.score,
            "distil": self.distil,
            "fit": self.fit,
            "evaluate": self.evaluate,
            "calibrate": self.calibrate,
            "export": self.export,
        }
        done: Done = {}
        for name in STAGES[: STAGES.index(last) + 1]:
            done[name] = stages[name](done)
            self.materials.release()
        return done

    def generate(self, done: Done) -> StageResult:
        plan, prompts = self.config.generate, self.materials.training_prompts

        def work(folder: Path) -> dict[str, Any]:
            sampler = sampler_of(plan, self.config.base, lambda: self.materials.base)
            asked = [Request(prompt.id, prompt.messages) for prompt in prompts.values()]
            files = [generate(sampler, asked, plan.sampling, folder / "plain", progress=self.shop.progress)]
            if plan.worded:
                asked = worded_requests(prompts.values(), plan.worded, plan.sampling.seed)
                drawn = replace(plan.sampling, samples=1, seed=(plan.sampling.seed + 1) % SEEDS)
                files.append(generate(sampler, asked, drawn, folder / "worded", progress=self.shop.progress))
            rows = [row for file in files for row in read_rows(file, Sample)]
            write_rows(folder / "samples.jsonl", rows)
            return {"prompts": len(prompts), "answers": len(rows), "finished": sum(row.finished for row in rows)}

        inputs = {**self._base_inputs, "prompts": rows_digest(prompts.values())}
        return self.shop.run("generate", self._settings("generate"), {}, work, **inputs)

    def score(self, done: Done) -> StageResult:
        scorers, prompts = self.materials.scorers, self.materials.training_prompts

        def work(folder: Path) -> dict[str, Any]:
            asked = list(read_rows(done["generate"].folder / "samples.jsonl", Sample))
            samples = [row for row in asked if row.finished]
            if not samples:
                most = self.config.generate.sampling.max_new_tokens
                raise ValueError(
                    f"none of {len(asked)} answers came to its end within generate.sampling.max_new_tokens ({most}); "
                    "give more tokens, or a base model that ends its answers"
                )
            judge = scorers.judge
            file = score(judge, prompts, samples, folder, judge_name=scorers.digest, progress=self.shop.progress)
            rows = list(read_rows(file, Scored))
            unjudged = sum(row.safety is None or row.helpfulness is None for row in rows)
            return {"answers": len(rows), "unjudged": unjudged}

        before = {"generate": done["generate"]}
        return self.shop.run("score", self._settings("score"), before, work, scorers=scorers.digest)

    def distil(self, done: Done) -> StageResult:
        def work(folder: Path) -> dict[str, Any]:
            found = distil(list(read_rows(done["score"].folder / "scored.jsonl", Scored)), self.config.distil)
            if not found.examples:
                raise ValueError(
                    f"distil kept no answer: {found.unjudged} could not be judged, {found.slips} were slips, of which "
                    "distil.least_probability decides; see score/scored.jsonl, and distil.margin and .levels"
                )
            write_rows(folder / "examples.jsonl", found.examples)
            cells = {f"safety {dials.safety}, helpfulness {dials.helpfulness}": n for dials, n in found.counts.items()}
            write_json(folder / "counts.json", cells)
            kept = len(found.examples)
            return {"examples": kept, "cells": len(cells), "unjudged": found.unjudged, "slips": found.slips}

        return self.shop.run("distil", self._settings("distil"), {"score": done["score"]}, work)

    def fit(self, done: Done) -> StageResult:
        materials, progress = self.materials, self.shop.progress

        def work(folder: Path) -> dict[str, Any]:
            last = folder / "fit"
            with self.crew.fitting():
                figures = asdict(_fit(self.config, materials, done["distil"].folder, last, progress))
            if plan := self.config.reinforce:
                begun, last, judge = last / ADAPTER, folder / "reinforce", materials.scorers
                rewarded = reinforce(
                    materials.base_to_fit, begun, materials.training_prompts, judge.judge, plan, last,
                    base_name=materials.base_name, judge_name=judge.digest,
                    report_to=self.config.report_to, progress=progress,
                )  # fmt: skip
                figures |= {f"reinforce_{key}": value for key, value in asdict(rewarded).items()}
            publish(last / ADAPTER, folder / ADAPTER)
            return figures

        prompts = rows_digest(materials.training_prompts.values())
        settings, parts = self._settings("fit", "reinforce", "base"), {"fit": ("reinforce",)}
        inputs = {**self._base_inputs, "base_name": materials.base_name, "prompts": prompts}
        return self.shop.run("fit", settings, {"distil": done["distil"]}, work, parts, **inputs)

    def evaluate(self, done: Done) -> StageResult:
        plan, prompts = self.config.evaluate, self.materials.evaluation_prompts

        def work(folder: Path) -> dict[str, Any]:
            asker = self._asker(done)
            requests = requests_for(prompts.values(), grid(plan.levels))
            answers = {mode: asker.answers(mode, requests, folder / mode) for mode in plan.modes}
            read = {mode: self._read(mode, prompts, rows) for mode, rows in answers.items()}
            found = {mode: self._figures(by_judge) for mode, by_judge in read.items()}
            unjudged = {
                mode: {judge: len(rows) for judge, rows in by_judge.items() if judge not in found[mode]}
                for mode, by_judge in read.items()
            }
            write_evaluations(folder / FIGURES_FILE, found, unjudged)
            return _headline(found["adapter"])

        inputs = {
            **self._base_inputs,
            "prompts": rows_digest(prompts.values()),
            "judges": {name: each.digest for name, each in self.materials.judges.items()},
        }
        return self.shop.run("evaluate", self._settings("evaluate"), {"fit": done["fit"]}, work, **inputs)

    def calibrate(self, done: Done) -> StageResult:
        plan = self.config.calibrate
        fitted_on, checked_on = self.materials.calibration_prompts, self.materials.evaluation_prompts
        modes = [mode for mode in self.config.evaluate.modes if mode in CALIBRATED_MODES]

        def work(folder: Path) -> dict[str, Any]:
            asker = self._asker(done)
            curves: Calibration = {}
            found: dict[str, Checked] = {}
            for mode in modes:
                words = default_wordings() if mode == "prompt" else None
                ask = Counting(asker.judged_in(mode, {**fitted_on, **checked_on}))
                try:
                    measured = measure_curves(ask, fitted_on, plan, folder / mode, words=words)
                except NothingToCalibrate as exc:
                    if mode == "adapter":
                        raise NothingToCalibrate(f"mode {mode}: {exc}") from exc
                    self.shop.say(f"calibrate: mode {mode} goes without: {exc}")
                    continue
                curves[mode] = measured
                checked = measure_checks(ask, checked_on, measured, plan, folder / mode)
                found[mode] = replace(checked, answers=ask.answers, unjudged=ask.unjudged)
            write_value(folder / "calibration.json", curves, Calibration)
            write_value(folder / "checks.json", found, dict[str, Checked])
            return {
                f"largest miss in mode {mode} {when} calibration": miss
                for mode, each in found.items()
                for when, miss in each.largest_miss().items()
            } | {f"unjudged in mode {mode}": each.unjudged for mode, each in found.items()}

        settings = self._settings("calibrate") | {"modes": modes, "sampling": asdict(self.config.evaluate.sampling)}
        prompts = rows_digest([*fitted_on.values(), *checked_on.values()])
        inputs = {**self._base_inputs, "prompts": prompts, "scorers": self.materials.scorers.digest}
        return self.shop.run("calibrate", settings, {"fit": done["fit"]}, work, **inputs)

    def export(self, done: Done) -> StageResult:
        def work(folder: Path) -> None:
            finish(self.config, self.materials, done, folder)

        result = self.shop.run("export", as_values(self.config), done, work, **self._base_inputs)
        if not self.config.export.merge:
            withdraw(self.shop.root / MERGED)
        for path in sorted(result.folder.iterdir()):
            publish(path, self.shop.root / path.name)
        return result

    @property
    def _base_inputs(self) -> dict[str, str]:
        return {"base": self.materials.base_digest, "base_settings": self.materials.base_settings}

    def _settings(self, *sections: str) -> dict[str, Any]:
        values = as_values(self.config)
        return {section: values[section] for section in sections}

    def _asker(self, done: Done) -> Asker:
        materials, adapter = self.materials, done["fit"].folder / ADAPTER
        load = partial(load_base, materials.base_folder, **materials.loading)
        load_dialled = partial(load_with_adapter, materials.base_folder, adapter, **materials.loading)
        sampling, scorers = self.config.evaluate.sampling, materials.scorers.judge
        return Asker(load, load_dialled, scorers, sampling, self.shop.progress)

    def _read(self, mode: str, prompts: Mapping[str, Prompt], answers: list[Sample]) -> dict[str, list[Trial]]:
        """What each judge reads off a mode's answers."""
        judges = self.materials.judges
        with self.shop.progress.task(f"judge {mode}", len(judges) * len(answers), unit="answers") as task:
            return {name: trials(prompts, answers, ShownJudge(each.judge, task)) for name, each in judges.items()}

    def _figures(self, by_judge: Mapping[str, list[Trial]]) -> dict[str, Evaluation]:
        """Each judge's figures; a judge that could judge none of the answers has none."""
        resamples, seed = self.config.evaluate.resamples, self.config.seed
        return {
            name: evaluate(rows, resamples=resamples, seed=seed)
            for name, rows in by_judge.items()
            if any(row.judged for row in rows)
        }


def _headline(by_judge: Mapping[str, Evaluation]) -> dict[str, Any]:
    """MP of both dials by every judge."""
    return {
        f"{dial} MP by {judge}": round(found.dial(dial).MP.value, 3)
        for judge, found in by_judge.items()
        for dial in DIAL_NAMES
    }
