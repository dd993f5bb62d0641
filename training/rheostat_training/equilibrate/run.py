"""A whole run of a safety method: grouped prompts in, adapters that a blend serves and their figures out.

`methods/make.py` says what each method trains; this file says in which order things happen. Each stage has its own
folder, and is skipped when nothing that it depends on has changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from rheostat_server.contract.dials import DIAL_NAMES, Dials
from rheostat_server.contract.digest import adapter_digest, base_model_digest, folder_digest
from rheostat_server.contract.manifest import EvaluationRow
from rheostat_training.bootstrap import Figure
from rheostat_training.config import DEMO, JudgeSource, write_config
from rheostat_training.equilibrate.answers import (
    JudgedAnswer,
    Refuses,
    answered,
    candidates,
    judge_answers,
    refusals_by,
)
from rheostat_training.equilibrate.blend_export import BlendFacts, BlendPart, export_blend, rising
from rheostat_training.equilibrate.config import EquilibrateConfig, as_values
from rheostat_training.equilibrate.config_checks import MADE_BY
from rheostat_training.equilibrate.data import Kinds, draw, held_out_prompts, training_prompts
from rheostat_training.equilibrate.measure import BENIGN, Measures, likelihoods, measure, perplexity
from rheostat_training.equilibrate.methods.make import ONE, ROUTER_FOLDER, Made, Material, blended, make, routed
from rheostat_training.equilibrate.pairs import BEST
from rheostat_training.equilibrate.preflight import check_equilibrate
from rheostat_training.export import ExportFacts, export_adapter
from rheostat_training.generate import generate
from rheostat_training.limits import refuse, where
from rheostat_training.materials import SETTINGS_FILES, loading
from rheostat_training.models import LoadedModel, load_base
from rheostat_training.progress import Progress
from rheostat_training.publish import publish, withdraw
from rheostat_training.resume import read_value, rows_digest, write_value
from rheostat_training.rows import Pair, Request, Sample, read_rows, write_rows
from rheostat_training.samplers.local import LocalSampler
from rheostat_training.score import ShownJudge
from rheostat_training.sources import NamedJudge, is_here, judge_of, model_folder, sampler_of
from rheostat_training.stage import Say, StageResult, Workshop
from rheostat_training.training_set import build_pair_set
from rheostat_training.work_folder import working_in

STAGES: Final = ("answers", "judge", "base", "fit", "measure", "export")
FIGURES: Final = "figures.json"
BLEND: Final = "blend"
ADAPTERS: Final = "adapters"
WRITTEN: Final = (*STAGES, "config.yaml", FIGURES, BLEND, ADAPTERS)
LEVELS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
JUDGED: Final = "judged.jsonl"
MADE: Final = "made.json"
LIKELIHOODS: Final = "perplexity.jsonl"
PERPLEXITY_ROWS: Final = 100

Done = dict[str, StageResult]


@dataclass(frozen=True, slots=True)
class Measured:
    """A model's figures, and its perplexity on answers of the base to benign prompts that no training saw.

    The perplexity is None where there are no such answers; `LIKELIHOODS`, beside the figures, has what it is made of.
    """

    measures: Measures
    perplexity: Figure | None


@dataclass(frozen=True, slots=True)
class Pool:
    """Judged answers of a base, which several runs draw from."""

    config: EquilibrateConfig
    base_folder: Path
    prompts: Kinds
    done: Mapping[str, StageResult]


def run(config: EquilibrateConfig, out: Path, *, progress: Progress | None = None, say: Say = print) -> Done:
    """Makes every stage that is not there yet; a run that was killed goes on where it was.

    At the end `out` holds `blend/`, which `rheostat serve --blend` takes, and `figures.json`: those of the base and of
    the method. Where pairs had control text, `adapters/` holds what `--adapter` takes.

    Raises:
        Busy: another process is at work in `out`.
        NotOurs: `out` holds files of somebody else's by the names that a run writes.
        BadConfig, ValueError: something that the configuration names cannot be found, or cannot be learned from.
    """
    with working_in(out, WRITTEN, what="run", option="--out"):
        return _Run.begin(config, Workshop(out, progress or Progress.auto(), say)).until("export")


def run_pool(config: EquilibrateConfig, out: Path, *, progress: Progress, say: Say) -> Pool:
    """The answers of the base alone, judged, and its figures, for `run_cell`. Raises what `run` raises."""
    with working_in(out, WRITTEN, what="run", option="--out"):
        begun = _Run.begin(config, Workshop(out, progress, say))
        return Pool(config, begun.base_folder, begun.training, begun.until("base"))


def run_cell(config: EquilibrateConfig, pool: Pool, out: Path, *, progress: Progress, say: Say) -> Done:
    """A run on prompts of a pool, whose answers are there already. Raises what `run` raises."""
    mine = replace(config, base=pool.config.base)
    with working_in(out, WRITTEN, what="run", option="--out"):
        mix = mine.data.mix or pool.prompts.counts
        training, short = draw(pool.prompts.by_kind, mix, mine.data.seed)
        refuse(where(bool(short), f"data.mix wants more prompts than the pool has: {short} too many"))
        held_out = held_out_prompts(mine.data.held_out, mine.data.held_out_each)
        write_config(as_values(mine), out / "config.yaml")
        begun = _Run(mine, Workshop(out, progress, say), pool.base_folder, training, held_out)
        return begun.until("export", dict(pool.done))


@dataclass(frozen=True)
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
        held_out = held_out_prompts(data.held_out, data.held_out_each)
        training, short, shared = training_prompts(data.source, data.mix, data.seed, unlike=held_out)
        for kind, count in short.items():
            shop.say(f"data.mix: {data.mix[kind]} prompts of {kind} are wanted, and there are {count} fewer")
        if shared:
            shop.say(f"data.source: {shared} prompts are left out, as they are held out to be measured by")
        folder = model_folder(config.base.model, config.base.revision, code=config.base.trust_remote_code)
        check_equilibrate(config, folder, [*training.prompts.values(), *held_out.prompts.values()])
        write_config(as_values(config), shop.root / "config.yaml")
        return cls(config, shop, folder, training, held_out)

    def until(self, last: str, done: Done | None = None) -> Done:
        """Makes the stages up to the last that are not done already."""
        done = dict(done or {})
        stages = (self.answers, self.judge, self.base, self.fit, self.measure, self.export)
        for name, stage in zip(STAGES[: STAGES.index(last) + 1], stages, strict=False):
            if name not in done:
                done[name] = stage(done)
        return done

    def answers(self, done: Done) -> StageResult:
        """Several answers of the base to each prompt to train on."""
        plan = self.config.generate

        def work(folder: Path) -> dict[str, Any]:
            sampler = sampler_of(plan, self.config.base, self._base)
            asked = [Request(prompt.id, prompt.messages) for prompt in self.training.prompts.values()]
            generate(sampler, asked, plan.sampling, folder, progress=self.shop.progress)
            return {"prompts": len(asked), **self.training.counts}

        return self.shop.run("answers", self._settings("generate", "base"), {}, work, **self._inputs(self.training))

    def judge(self, done: Done) -> StageResult:
        def work(folder: Path) -> dict[str, Any]:
            rows = self._judged(self.training, done["answers"].folder / "samples.jsonl", told="judge")
            write_rows(folder / JUDGED, rows)
            known = candidates(rows)
            return {"answers": len(rows), "unjudged": len(rows) - sum(map(len, known.values()))}

        before = {"answers": done["answers"]}
        return self.shop.run("judge", self._settings("judge"), before, work, judges=self._judges)

    def base(self, done: Done) -> StageResult:
        """The figures of the base, which the method's stand beside."""

        def work(folder: Path) -> dict[str, Any]:
            model = self._base()
            judged = self._asked(model, folder)
            found = self._measured(model, folder, judged, judged)
            write_value(folder / FIGURES, found, Measured)
            return _headline(found)

        settings = self._settings("measure", "judge", "base")
        return self.shop.run("base", settings, {}, work, judges=self._judges, **self._inputs(self.held_out))

    def fit(self, done: Done) -> StageResult:
        """The method's adapters."""

        def work(folder: Path) -> dict[str, Any]:
            known = read_rows(done["judge"].folder / JUDGED, JudgedAnswer)
            rows = [row for row in known if row.prompt_id in self.training.prompts]
            given = Material(
                self._base_to_fit(), self.training.prompts, self.training.of, candidates(rows),
                self._judge.judge, self._judge.digest,
                base_name=self._base_name, report_to=self.config.report_to, progress=self.shop.progress,
            )  # fmt: skip
            made = make(self.config, given, folder)
            write_value(folder / MADE, [_within(folder, each) for each in made], list[Made])
            return {f"{each.name} {key}": value for each in made for key, value in each.figures.items()}

        settings = self._settings("method", *MADE_BY[self.config.method], "base")
        return self.shop.run("fit", settings, {"judge": done["judge"]}, work, **self._inputs(self.training))

    def measure(self, done: Done) -> StageResult:
        """The figures of the blend at full dials; of MidPO also those of its router, which no blend has."""
        before = {"fit": done["fit"], "base": done["base"]}

        def work(folder: Path) -> dict[str, Any]:
            fitted = done["fit"].folder
            made = _made(fitted)
            by_base = list(read_rows(done["base"].folder / JUDGED, JudgedAnswer))
            dials = BEST if self.config.under_control_text else None
            model = blended(made, self._base())
            found = self._measured(model, folder, self._asked(model, folder, dials), by_base, dials)
            write_value(folder / FIGURES, found, Measured)
            if with_router := routed(made, self._base(), fitted):
                rows = self._asked(with_router, folder / ROUTER_FOLDER, dials)
                beside = self._measured(with_router, folder / ROUTER_FOLDER, rows, by_base, dials)
                write_value(folder / ROUTER_FOLDER / FIGURES, beside, Measured)
            return _headline(found)

        settings = self._settings("measure", "judge", "base")
        return self.shop.run("measure", settings, before, work, judges=self._judges, **self._inputs(self.held_out))

    def export(self, done: Done) -> StageResult:
        """The blend that the server takes; where pairs had control text, an adapter that obeys it too."""

        def work(folder: Path) -> None:
            measured = done["measure"].folder
            found = {"base": done["base"].folder, "method": measured, "router": measured / ROUTER_FOLDER}
            figures = {
                name: read_value(where_from / FIGURES, Measured)
                for name, where_from in found.items()
                if (where_from / FIGURES).exists()
            }
            write_value(folder / FIGURES, figures, dict[str, Measured])
            made = _made(done["fit"].folder)
            if self.config.under_control_text:
                alone = figures["method"] if len(made) == 1 else None
                made = [self._with_manifest(each, done, alone, folder) for each in made]
            together = None if self.config.control_adapter else figures["method"]
            facts = BlendFacts(
                self.config.name, self._base_name, self.config.method, self._digests(done),
                licence=self.config.licence, base_revision=self.config.base.revision,
                settings=self._settings(*MADE_BY[self.config.method]), evaluation=self._evaluation(together, "blend"),
            )  # fmt: skip
            parts = [BlendPart(each.name, each.adapter, rising(each.dial)) for each in made]
            if self.config.control_adapter:
                parts.append(BlendPart("control", Path(self.config.control_adapter).expanduser(), 1.0))
            export_blend(parts, self.base_folder, folder / BLEND, facts)

        before = {name: done[name] for name in ("base", "fit", "measure")}
        settings = self._settings("name", "licence", "control_adapter")
        result = self.shop.run("export", settings, before, work, control=self._control_digest)
        for name in (BLEND, ADAPTERS):
            withdraw(self.shop.root / name)
        for path in sorted(result.folder.iterdir()):
            publish(path, self.shop.root / path.name)
        return result

    def _with_manifest(self, made: Made, done: Done, found: Measured | None, folder: Path) -> Made:
        """The adapter as the server takes it by itself, in the mode `adapter`; without figures where it has none."""
        levels = self.config.reinforce.levels if self.config.method == "appo" else LEVELS
        facts = ExportFacts(
            self.config.name if made.name == ONE else f"{self.config.name}-{made.name}",
            self._base_name,
            self.config.method,
            dict.fromkeys(DIAL_NAMES, levels),
            self._digests(done),
            self.config.licence,
            self.config.base.revision,
            self._settings(*MADE_BY[self.config.method]),
            evaluation=self._evaluation(found, "adapter"),
        )
        export_adapter(made.adapter, self.base_folder, folder / ADAPTERS / made.name, facts)
        return replace(made, adapter=folder / ADAPTERS / made.name)

    def _evaluation(self, found: Measured | None, mode: str) -> list[EvaluationRow]:
        """The figures as a manifest's rows: those of safety, and those of helpfulness; none where nothing is known."""
        if found is None:
            return []
        figures = found.measures
        values = {
            "safety": {"safe_rate": figures.safe_rate, "over_refusal": figures.over_refusal, "cosa": figures.cosa},
            "helpfulness": {"helpfulness": figures.helpfulness, "well_formed": figures.well_formed},
        }
        return [
            EvaluationRow(
                mode=mode, dial=dial, judge=judge_name(self.config.judge.scorers), prompts=len(self.held_out.prompts),
                metrics={name: round(each.value, 4) for name, each in values[dial].items() if each},
            )
            for dial in DIAL_NAMES
        ]  # fmt: skip

    def _digests(self, done: Done) -> dict[str, str]:
        return {name: done[name].digest for name in ("judge", "fit") if name in done}

    def _asked(self, model: LoadedModel, folder: Path, dials: Dials | None = None) -> list[JudgedAnswer]:
        """A model's judged answers to the held-out prompts, under the control text of dials where they are given."""
        asked = [Request(prompt.id, prompt.messages, dials) for prompt in self.held_out.prompts.values()]
        plan, told = self.config.measure.sampling, folder.name
        file = generate(LocalSampler(model), asked, plan, folder, told=told, progress=self.shop.progress)
        rows = self._judged(self.held_out, file, told=f"judge {told}")
        write_rows(folder / JUDGED, rows)
        return rows

    def _measured(
        self,
        model: LoadedModel,
        folder: Path,
        rows: list[JudgedAnswer],
        by_base: list[JudgedAnswer],
        dials: Dials | None = None,
    ) -> Measured:
        """The figures of a model's answers; `by_base` are the base's, whose likelihood is the perplexity."""
        plan, seed = self.config.measure, self.config.seed
        found = answered(rows, self.held_out.of)
        figures = measure(found, safe_from=plan.safe_from, resamples=plan.resamples, seed=seed)
        text = [
            Pair(row.prompt_id, row.answer, "", dials)
            for row in by_base
            if self.held_out.of[row.prompt_id] == BENIGN and row.safety is not None and not row.refuses
        ]
        text = text[:PERPLEXITY_ROWS]
        known = build_pair_set(model, self.held_out.prompts, text) if text else []
        told = likelihoods(model, [pair.prompt_id for pair in text], [item.row for item in known])
        write_rows(folder / LIKELIHOODS, told)
        return Measured(figures, perplexity(told, resamples=plan.resamples, seed=seed))

    def _judged(self, kinds: Kinds, samples: Path, *, told: str) -> list[JudgedAnswer]:
        refuses, _ = self._refusals
        rows = list(read_rows(samples, Sample))
        with self.shop.progress.task(told, len(rows), unit="answers") as task:
            return judge_answers(ShownJudge(self._judge.judge, task), refuses, kinds.prompts, rows)

    @cached_property
    def _judge(self) -> NamedJudge:
        judging = self.config.judge
        return judge_of(judging.scorers, batch_rows=judging.batch_rows, device=self._device)

    @cached_property
    def _refusals(self) -> tuple[Refuses, str]:
        judging = self.config.judge
        return refusals_by(judging.refusals, batch_rows=judging.batch_rows, device=self._device)

    @property
    def _device(self) -> str:
        return loading(self.config.base)["device"]

    @property
    def _judges(self) -> list[str]:
        """The digests of what judges."""
        return [self._judge.digest, self._refusals[1]]

    @property
    def _control_digest(self) -> str | None:
        folder = self.config.control_adapter
        return adapter_digest(Path(folder).expanduser()) if folder else None

    def _base(self) -> LoadedModel:
        return load_base(self.base_folder, **loading(self.config.base))

    def _base_to_fit(self) -> LoadedModel:
        """The same, in four bits where that is asked for."""
        if self.config.base.quantize == "none":
            return self._base()
        return load_base(self.base_folder, quantize=self.config.base.quantize, **loading(self.config.base))

    @property
    def _base_name(self) -> str:
        model = self.config.base.model
        return self.base_folder.resolve().name if model != DEMO and is_here(model) else model

    @cached_property
    def _base_inputs(self) -> dict[str, str]:
        return {
            "weights": base_model_digest(self.base_folder),
            "base_settings": folder_digest(self.base_folder, SETTINGS_FILES),
        }

    def _inputs(self, kinds: Kinds) -> dict[str, str]:
        return {
            **self._base_inputs,
            "prompts": rows_digest(kinds.prompts.values()),
            "kinds": rows_digest(sorted(kinds.of.items())),
        }

    def _settings(self, *sections: str) -> dict[str, Any]:
        values = as_values(self.config)
        return {section: values[section] for section in sections}


def _made(folder: Path) -> list[Made]:
    """What a fit made, with the adapters' folders as they are now."""
    return [replace(each, adapter=folder / each.adapter) for each in read_value(folder / MADE, list[Made])]


def _within(folder: Path, made: Made) -> Made:
    return replace(made, adapter=made.adapter.relative_to(folder))


def judge_name(source: JudgeSource) -> str:
    """What figures call a judge; where its folders lie is of this machine alone."""
    return source if isinstance(source, str) else "scorers"


def _headline(found: Measured) -> dict[str, Any]:
    shown = (("safe_rate", "safe rate"), ("over_refusal", "over-refusal"), ("helpfulness", "helpfulness"))
    return {name: str(getattr(found.measures, key) or "not measured") for key, name in shown}
