"""A whole run of a safety method: grouped prompts in, adapters that a blend serves and their figures out.

`methods.py` says what each method trains; this file says in which order things happen. Each stage has its own folder,
and is skipped when nothing that it depends on has changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from rheostat_server.contract.digest import base_model_digest
from rheostat_training.config import DEMO
from rheostat_training.equilibrate.answers import (
    JudgedAnswer,
    answered,
    candidates,
    judge_answers,
    refusals_by,
)
from rheostat_training.equilibrate.config import EquilibrateConfig, as_values
from rheostat_training.equilibrate.data import Kinds, held_out_prompts, training_prompts
from rheostat_training.equilibrate.measure import BENIGN, Measures, measure, perplexity
from rheostat_training.equilibrate.methods import Made, Material, make
from rheostat_training.generate import generate
from rheostat_training.materials import loading
from rheostat_training.models import LoadedModel, load_base, merged
from rheostat_training.progress import Progress
from rheostat_training.publish import publish
from rheostat_training.resume import read_value, rows_digest, write_value
from rheostat_training.rows import Pair, Request, Sample, read_rows, write_rows
from rheostat_training.samplers.local import LocalSampler
from rheostat_training.score import ShownJudge
from rheostat_training.sources import is_here, judge_of, model_folder, sampler_of
from rheostat_training.stage import Say, StageResult, Workshop
from rheostat_training.training_set import TrainingRow, build_pair_set
from rheostat_training.work_folder import working_in

STAGES: Final = ("answers", "judge", "fit", "measure", "export")
FIGURES: Final = "figures.json"
WRITTEN: Final = (*STAGES, "config.yaml", FIGURES, "components")
PERPLEXITY_ROWS: Final = 100

Done = dict[str, StageResult]


@dataclass(frozen=True, slots=True)
class Measured:
    """A model's figures, and its perplexity on the safe answers of the base to the prompts trained on."""

    measures: Measures
    perplexity: float


def run(config: EquilibrateConfig, out: Path, *, progress: Progress | None = None, say: Say = print) -> Done:
    """Makes every stage that is not there yet; a run that was killed goes on where it was.

    At the end `out` holds `components/`, an adapter a folder, and `figures.json`: those of the base and of the method.

    Raises:
        Busy: another process is at work in `out`.
        NotOurs: `out` holds files of somebody else's by the names that a run writes.
        BadConfig, ValueError: something that the configuration names cannot be found, or cannot be learned from.
    """
    with working_in(out, WRITTEN, what="run", option="--out"):
        text = yaml.safe_dump(as_values(config), sort_keys=False, allow_unicode=True)
        (out / "config.yaml").write_text(text, encoding="utf-8")
        return _Run.begin(config, Workshop(out, progress or Progress.auto(), say)).all()


@dataclass(frozen=True, slots=True)
class _Run:
    """The stages, each a method that takes those before it."""

    config: EquilibrateConfig
    shop: Workshop
    base_folder: Path
    training: Kinds
    held_out: Kinds

    @classmethod
    def begin(cls, config: EquilibrateConfig, shop: Workshop) -> "_Run":
        data = config.data
        training, short = training_prompts(data.source, data.mix, data.seed)
        for kind, count in short.items():
            shop.say(f"data.mix: {data.mix[kind]} prompts of {kind} are wanted, and there are {count} fewer")
        held_out = held_out_prompts(data.held_out, data.held_out_each)
        folder = model_folder(config.base.model, config.base.revision, code=config.base.trust_remote_code)
        return cls(config, shop, folder, training, held_out)

    def all(self) -> Done:
        done: Done = {}
        for stage in (self.answers, self.judge, self.fit, self.measure, self.export):
            done[stage.__name__] = stage(done)
        return done

    def answers(self, done: Done) -> StageResult:
        """Several answers of the base to each prompt to train on."""
        plan = self.config.generate

        def work(folder: Path) -> dict[str, Any]:
            sampler = sampler_of(plan, self.config.base, self._base)
            asked = [Request(prompt.id, prompt.messages) for prompt in self.training.prompts.values()]
            generate(sampler, asked, plan.sampling, folder, progress=self.shop.progress)
            return {"prompts": len(asked), **self.training.counts}

        return self.shop.run("answers", self._settings("generate"), {}, work, **self._inputs(self.training))

    def judge(self, done: Done) -> StageResult:
        def work(folder: Path) -> dict[str, Any]:
            rows = self._judged(self.training, done["answers"].folder / "samples.jsonl", told="judge")
            write_rows(folder / "judged.jsonl", rows)
            known = candidates(rows)
            return {"answers": len(rows), "unjudged": len(rows) - sum(map(len, known.values()))}

        return self.shop.run("judge", self._settings("judge"), {"answers": done["answers"]}, work)

    def fit(self, done: Done) -> StageResult:
        """The method's adapters."""

        def work(folder: Path) -> dict[str, Any]:
            rows = list(read_rows(done["judge"].folder / "judged.jsonl", JudgedAnswer))
            given = Material(
                self._base(), self.training.prompts, candidates(rows),
                base_name=self._base_name, report_to=self.config.report_to, progress=self.shop.progress,
            )  # fmt: skip
            made = make(self.config, given, folder)
            write_value(folder / "made.json", [_within(folder, each) for each in made], list[Made])
            return {f"{each.name} {key}": value for each in made for key, value in each.figures.items()}

        settings = self._settings("method", "pairs", "rewards", "fit", "base")
        return self.shop.run("fit", settings, {"judge": done["judge"]}, work, **self._inputs(self.training))

    def measure(self, done: Done) -> StageResult:
        """The held-out prompts asked of the base and of the base with the method's adapters."""
        before = {"fit": done["fit"]}

        def work(folder: Path) -> dict[str, Any]:
            adapters = [each.adapter for each in _made(done["fit"].folder)]
            found = {"base": self._measured(self._base(), folder / "base")}
            found["method"] = self._measured(self._with(adapters), folder / "method")
            write_value(folder / FIGURES, found, dict[str, Measured])
            return _headline(found)

        return self.shop.run("measure", self._settings("measure", "judge"), before, work, **self._inputs(self.held_out))

    def export(self, done: Done) -> StageResult:
        def work(folder: Path) -> None:
            for each in _made(done["fit"].folder):
                publish(each.adapter, folder / "components" / each.name)
            publish(done["measure"].folder / FIGURES, folder / FIGURES)

        result = self.shop.run("export", self._settings("name", "licence"), done, work)
        for path in sorted(result.folder.iterdir()):
            publish(path, self.shop.root / path.name)
        return result

    def _measured(self, model: LoadedModel, folder: Path) -> Measured:
        asked = [Request(prompt.id, prompt.messages) for prompt in self.held_out.prompts.values()]
        plan, told = self.config.measure, folder.name
        file = generate(LocalSampler(model), asked, plan.sampling, folder, told=told, progress=self.shop.progress)
        rows = self._judged(self.held_out, file, told=f"judge {told}")
        write_rows(folder / "judged.jsonl", rows)
        found = answered(rows, self.held_out.of)
        figures = measure(found, safe_from=plan.safe_from, resamples=plan.resamples, seed=self.config.seed)
        return Measured(figures, perplexity(model, self._text(model)))

    def _text(self, model: LoadedModel) -> list[TrainingRow]:
        """Answers that any good model of this base should find likely: its own safe ones to held-out benign prompts."""
        base = self.shop.root / "measure" / "base" / "judged.jsonl"
        known = [
            Pair(row.prompt_id, row.answer, "")
            for row in read_rows(base, JudgedAnswer)
            if self.held_out.of[row.prompt_id] == BENIGN and row.safety is not None and not row.refuses
        ]
        return [item.row for item in build_pair_set(model, self.held_out.prompts, known[:PERPLEXITY_ROWS])]

    def _judged(self, kinds: Kinds, samples: Path, *, told: str) -> list[JudgedAnswer]:
        judging = self.config.judge
        judge = judge_of(judging.scorers, batch_rows=judging.batch_rows).judge
        rows = list(read_rows(samples, Sample))
        with self.shop.progress.task(told, len(rows), unit="answers") as task:
            return judge_answers(ShownJudge(judge, task), refusals_by(judging.refusals)[0], kinds.prompts, rows)

    def _base(self) -> LoadedModel:
        return load_base(self.base_folder, **loading(self.config.base))

    def _with(self, adapters: list[Path]) -> LoadedModel:
        """The base and the whole of each adapter."""
        model = self._base()
        for adapter in adapters:
            model = merged(model, adapter)
        return model

    @property
    def _base_name(self) -> str:
        model = self.config.base.model
        return self.base_folder.resolve().name if model != DEMO and is_here(model) else model

    def _inputs(self, kinds: Kinds) -> dict[str, str]:
        return {"weights": base_model_digest(self.base_folder), "prompts": rows_digest(kinds.prompts.values())}

    def _settings(self, *sections: str) -> dict[str, Any]:
        values = as_values(self.config)
        return {section: values[section] for section in sections}


def _made(folder: Path) -> list[Made]:
    """What a fit made, with the adapters' folders as they are now."""
    return [replace(each, adapter=folder / each.adapter) for each in read_value(folder / "made.json", list[Made])]


def _within(folder: Path, made: Made) -> Made:
    return replace(made, adapter=made.adapter.relative_to(folder))


def _headline(found: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        f"{name} of {who}": str(getattr(each.measures, key))
        for who, each in found.items()
        for key, name in (("safe_rate", "safe rate"), ("over_refusal", "over-refusal"), ("helpfulness", "helpfulness"))
    }
