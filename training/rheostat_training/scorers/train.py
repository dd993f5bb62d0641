"""The recipe of a scorer of real text: read labels, encode, judge rows held out, fit on all, measure, report."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.text.encoder import Encoder
from rheostat_server.scorers.text.features import FeaturePlan, Material, Matrix, answer_texts, dense_features
from rheostat_server.scorers.text.folder import TextScorerKind
from rheostat_server.scorers.text.head import Head
from rheostat_server.scorers.text.text_scorer import TextScorer
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.publish import with_ordinary_permissions
from rheostat_training.resume import INPUTS_FILE, claim, plan_facts, rows_digest, write_json
from rheostat_training.scorers.head_fit import HeadPlan
from rheostat_training.scorers.hold_out import ALL_MODELS, Fold, HoldOut, Labelled, Share, folds, shares
from rheostat_training.scorers.labelled import file_digest
from rheostat_training.scorers.save import save_text_scorer
from rheostat_training.scorers.stages import PreferenceStage, RefusalStage, Right, Stage
from rheostat_training.scorers.timing import milliseconds
from rheostat_training.sources import model_folder
from rheostat_training.work_folder import alone_in, refuse_foreign

PROMPT_PARTS = 5
FEATURES_FILE = "features.safetensors"
SCORER_FOLDER = "scorer"
WRITTEN = (SCORER_FOLDER, FEATURES_FILE, "report.json", "report.md")
"""What a training puts into its folder, in place of what is there by these names."""

FEATURES: dict[TextScorerKind, FeaturePlan] = {"refusal": FeaturePlan(layers=3), "preference": FeaturePlan(layers=4)}
HEADS: dict[TextScorerKind, HeadPlan] = {
    "refusal": HeadPlan(inverse_penalty=15.0, vector_weight=0.6, phrase_weight=0.3),
    "preference": HeadPlan(inverse_penalty=0.025, vector_weight=2.0, phrase_weight=2.0),
}


@dataclass(frozen=True, slots=True)
class TextScorerPlan:
    """What to train and what to hold out; prompts are held out in `prompt_parts` equal parts."""

    kind: TextScorerKind
    hold_out: frozenset[HoldOut]
    prompt_parts: int = PROMPT_PARTS
    seed: int = 0
    features: FeaturePlan | None = None
    head: HeadPlan | None = None

    def __post_init__(self) -> None:
        if self.prompt_parts < 2:
            raise ValueError(f"prompt_parts is {self.prompt_parts}; it must be at least 2")

    def facts(self) -> dict[str, Any]:
        used = {"features": asdict(self.feature_plan), "head": asdict(self.head_plan)}
        return {**plan_facts(self), "hold_out": sorted(self.hold_out), **used}

    @property
    def feature_plan(self) -> FeaturePlan:
        """The features' own plan, or the one found to do for the kind."""
        return self.features or FEATURES[self.kind]

    @property
    def head_plan(self) -> HeadPlan:
        """The head's own plan, or the one found to do for its kind."""
        return self.head or HEADS[self.kind]


@dataclass(frozen=True, slots=True)
class TextScorerReport:
    """Shares by model held out and their mean: of rows right, and of rows that the baseline has right.

    `data` are the files' names and digests in their order, `left_out` how many of their rows cannot be learned from.
    """

    kind: TextScorerKind
    rows: int
    held_out: tuple[HoldOut, ...]
    agreement: dict[str, Share]
    baseline: dict[str, Share]
    confusion: list[list[int]]
    milliseconds: float
    cpu_milliseconds: float
    encoder_parameters: int
    bytes_on_disk: int
    data: list[list[str]]
    left_out: Mapping[str, int]
    encoder: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Judged:
    right: Right
    baseline: Right
    prompts: list[str]
    models: list[str]
    confusion: list[list[int]]


def train_text_scorer(
    data: Sequence[Path], encoder_name: str, plan: TextScorerPlan, out: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Trains into `out/scorer` and returns what is in `out/report.json`.

    Raises:
        BadRow: a line of the data does not fit.
        AnotherRun: `out` holds the work of other data, another encoder or another plan.
        Busy: another training is at work in `out`.
        NotOurs: `out` holds files of somebody else's by the names that are written here.
        BadConfig: the encoder is no folder, and no hub has it or none can be reached.
        ValueError: there are too few rows, models or prompts, or the encoder does not pool by the mean.
    """
    with alone_in(out, what="training", option="--out"):
        if not (out / INPUTS_FILE).exists():
            refuse_foreign(out, WRITTEN, what="training", option="--out")
        return _trained(data, encoder_name, plan, out, progress or Progress.auto())


def _trained(
    data: Sequence[Path], encoder_name: str, plan: TextScorerPlan, out: Path, shown: Progress
) -> dict[str, Any]:
    started = time.monotonic()
    stage: Stage = RefusalStage.read(data) if plan.kind == "refusal" else PreferenceStage.read(data)
    planned = list(folds(stage.rows, plan.hold_out, parts=plan.prompt_parts, seed=plan.seed))
    digests = [[path.name, file_digest(path)] for path in data]
    encoder = Encoder.load(model_folder(encoder_name), layers=plan.feature_plan.layers)
    digest = LoadedModel(encoder.model, encoder.tokenizer).digest()
    claim(out, {"stage": "text scorer", "plan": plan.facts(), "data": digests, "encoder": digest})
    if (out / "report.json").exists():
        found: dict[str, Any] = json.loads((out / "report.json").read_text())
        return found
    material = Material(_dense(encoder, stage.dialogues, plan.feature_plan, out, shown), answer_texts(stage.dialogues))
    judged = _held_out(stage, material, planned, plan, shown)
    head = _fit(stage, material, range(len(stage.rows)), plan)
    scorer = TextScorer(plan.kind, encoder, head, plan.feature_plan)
    _replace(scorer, out / SCORER_FOLDER)
    taken = milliseconds(scorer, stage.dialogues[: len(stage.rows)], seed=plan.seed)
    report = TextScorerReport(
        kind=plan.kind,
        rows=len(stage.rows),
        held_out=tuple(sorted(plan.hold_out)),
        agreement=shares(judged.right, judged.prompts, judged.models, seed=plan.seed),
        baseline=shares(judged.baseline, judged.prompts, judged.models, seed=plan.seed),
        confusion=judged.confusion,
        milliseconds=taken.wall,
        cpu_milliseconds=taken.cpu,
        encoder_parameters=encoder.parameters,
        bytes_on_disk=sum(file.stat().st_size for file in (out / SCORER_FOLDER).rglob("*") if file.is_file()),
        data=digests,
        left_out=stage.left_out,
        encoder=digest,
        seconds=round(time.monotonic() - started, 1),
    )
    (out / "report.md").write_text(markdown(report))
    write_json(out / "report.json", asdict(report))
    return asdict(report)


def _fit(stage: Stage, material: Material, at: Sequence[int], plan: TextScorerPlan) -> Head:
    return stage.fit(material, at, plan.head_plan, opening=plan.feature_plan.opening_characters, seed=plan.seed)


def _held_out(
    stage: Stage, material: Material, planned: Sequence[Fold], plan: TextScorerPlan, progress: Progress
) -> _Judged:
    rows: Sequence[Labelled] = stage.rows
    right, baseline, prompts, models = [], [], [], []
    confusion = [[0] * 3 for _ in range(3)]
    with progress.task("hold out", len(planned), unit="folds") as task:
        for fold in planned:
            found = stage.judge(_fit(stage, material, fold.train, plan), material, fold.test)
            right.append(found.right)
            baseline.append(found.baseline)
            prompts += [rows[at].prompt for at in fold.test]
            models += [fold.model if fold.model != ALL_MODELS else _one_model(rows[at]) for at in fold.test]
            for wanted, named in found.pairs:
                confusion[wanted][named] += 1
            task.advance()
    return _Judged(np.concatenate(right), np.concatenate(baseline), prompts, models, confusion)


def _one_model(row: Labelled) -> str:
    return row.models[0] if len(row.models) == 1 else ALL_MODELS


def _dense(encoder: Encoder, dialogues: Sequence[Dialogue], plan: FeaturePlan, out: Path, progress: Progress) -> Matrix:
    """Features of an earlier, killed run where they are whole and of these dialogues: encoding takes the longest."""
    path = out / FEATURES_FILE
    told = {"dialogues": rows_digest(dialogues)}
    if not path.exists() or _metadata(path) != told:
        partial = path.with_name(f"{path.name}.partial")
        with progress.task("encode", len(dialogues), unit="texts") as task:
            features = dense_features(encoder, dialogues, plan, told=task.advance)
        save_file({"features": features}, partial, metadata=told)
        partial.replace(path)
    found: Matrix = load_file(path)["features"]
    return found


def _metadata(path: Path) -> dict[str, str] | None:
    with safe_open(path, framework="np") as file:
        found: dict[str, str] | None = file.metadata()
    return found


def _replace(scorer: TextScorer, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_text_scorer(scorer, partial)
    shutil.rmtree(folder, ignore_errors=True)
    with_ordinary_permissions(partial).replace(folder)


def markdown(report: TextScorerReport) -> str:
    """The report as a table."""
    baseline = "string matching" if report.kind == "refusal" else "the shorter answer"
    what = "agreement with the human labels" if report.kind == "refusal" else "pairs put in the human order"
    lines = [
        f"# A {report.kind} scorer of {report.rows} rows",
        "",
        f"Held out: {' and '.join(report.held_out)}. Shares with 95 % intervals from resampling prompts.",
        "",
        f"| model held out | rows | {what} | {baseline} |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {share.rows} | {_cell(share)} | {_cell(report.baseline[name])} |"
            for name, share in report.agreement.items()
        ),
        "",
        f"Left out: {', '.join(f'{count} {what}' for what, count in report.left_out.items())}.",
        "",
        f"A response takes {report.milliseconds} ms on one core, {report.cpu_milliseconds} ms of the processor's time "
        f"(medians); an encoder of {report.encoder_parameters / 1e6:.1f} M parameters; "
        f"{report.bytes_on_disk / 1e6:.1f} MB on disk.",
        "",
        *(f"- {name}: `{digest}`" for name, digest in report.data),
        f"- encoder: `{report.encoder}`",
    ]
    return "\n".join(lines) + "\n"


def _cell(share: Share) -> str:
    return f"{share.value:.3f} ({share.low:.3f}–{share.high:.3f})"
