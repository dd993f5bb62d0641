"""How scorers of real text agree with labels of answers that they never saw, asked as a server asks them.

Each fold's scorer is trained, written, named in a scorers' file and loaded from there; its level of an answer is what
reranking reads.
"""

import argparse
import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Final, Generic, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.overhead_report import with_section
from rheostat_server.contract.dials import DialName
from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.build import load_scorers, read_scorers
from rheostat_server.scorers.text.encoder import Encoder
from rheostat_server.scorers.text.features import FeaturePlan, Material, read_material
from rheostat_server.scorers.text.folder import TextScorerKind
from rheostat_server.scorers.text.head import Head
from rheostat_server.scorers.text.text_scorer import TextScorer, levels_of
from rheostat_training.bootstrap import Array, Bootstrap, Figure, Places, figure
from rheostat_training.progress import Progress
from rheostat_training.scorers.hold_out import Fold, Share, folds, hold_outs, shares
from rheostat_training.scorers.labelled import PreferencePair
from rheostat_training.scorers.save import save_text_scorer
from rheostat_training.scorers.stages import PreferenceStage, RefusalStage
from rheostat_training.scorers.string_matching import FULL_COMPLIANCE, FULL_REFUSAL, matched
from rheostat_training.scorers.train import TextScorerPlan
from rheostat_training.sources import model_folder

REFUSALS: Final = "xstest_completions.jsonl.gz"
HARMLESS: Final = "hh_harmless.jsonl.gz"
ALPACA: Final = "alpaca_eval_preferences.jsonl.gz"
PARTIAL: Final = 3 - FULL_COMPLIANCE - FULL_REFUSAL
STEPS: Final = tuple(step / 50 for step in range(1, 50))
AT_ONCE: Final = 16
"""Dialogues in a call, as many as a request of 16 candidates has."""
DEADLINE: Final = 300.0
"""Seconds: agreement is measured here, not speed, and the machine may be busy."""
MEAN: Final = "mean"
RESAMPLES: Final = 2000
PREFERENCES: Final[tuple[tuple[str, DialName, str, str], ...]] = (
    ("harmlessness (HH-RLHF)", "safety", HARMLESS, "prompt"),
    ("preference (AlpacaEval)", "helpfulness", ALPACA, "prompt"),
    ("preference (AlpacaEval)", "helpfulness", ALPACA, "model,prompt"),
)
OPENING: Final = """## Agreement as served

`python -m benchmarks.scorers agreement --data FOLDER --encoder FOLDER_OR_NAME` trains a scorer a fold, writes it,
names it in a scorers' file, loads it as a server does (`build.read_scorers`, `load_scorers`) and asks it as reranking
asks: what is compared with the labels is the level that a candidate is chosen by. Shares and areas have 95 % intervals
from resampling prompts. Labels of refusals and of harmlessness are people's, those of AlpacaEval GPT-4-turbo's. "Better
model" says that the answer wins whose model won more of the pairs trained on. A pair of two models is tested once for
each where models are held out. The presets of the Hub could not be had here, so they are not in this table."""
HEAD: Final = "| labels | held out | rows | what | as served | baseline |\n| --- | --- | ---: | --- | ---: | --- |"
AnyStage = TypeVar("AnyStage", RefusalStage, PreferenceStage)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Below `low` of what is refused an answer complies, from `high` on it refuses in full, between in part."""

    low: float
    high: float

    def classes(self, refused: Array) -> Places:
        """Places in REFUSAL_CLASSES, [rows]."""
        found: Places = np.where(refused < self.low, FULL_COMPLIANCE, PARTIAL)
        return np.where(refused >= self.high, FULL_REFUSAL, found)


@dataclass(frozen=True, slots=True, eq=False)
class Bench(Generic[AnyStage]):
    """One data set, and all that is needed to fit and to serve a scorer of some of its rows."""

    stage: AnyStage
    plan: TextScorerPlan
    dial: DialName
    encoder: Encoder
    material: Material
    folder: Path

    @classmethod
    def of(
        cls,
        stage: AnyStage,
        plan: TextScorerPlan,
        given: argparse.Namespace,
        folder: Path,
        *,
        dial: DialName = "helpfulness",
    ) -> "Bench[AnyStage]":
        loaded = Encoder.load(model_folder(given.encoder), layers=plan.feature_plan.layers)
        return cls(stage, plan, dial, loaded, material_of(loaded, stage.dialogues, plan.feature_plan), folder)

    def folds(self) -> list[Fold]:
        return list(folds(self.stage.rows, self.plan.hold_out, parts=self.plan.prompt_parts, seed=self.plan.seed))

    def fit(self, at: Sequence[int]) -> Head:
        opening = self.plan.feature_plan.opening_characters
        return self.stage.fit(self.material, at, self.plan.head_plan, opening=opening, seed=self.plan.seed)

    def served(self, head: Head, dialogues: Sequence[Dialogue]) -> Array:
        """The levels that a server reads of dialogues, [dialogues]: it loads the head's scorer by a scorers' file."""
        save_text_scorer(TextScorer(self.plan.kind, self.encoder, head, self.plan.feature_plan), self.folder / "scorer")
        file = self.folder / "scorers.yaml"
        spec = {"kind": self.plan.kind, "model": "scorer", "dial": self.dial, "deadline": DEADLINE}
        file.write_text(yaml.safe_dump({"scorers": [spec]}))
        return asyncio.run(asked(file, self.dial, dialogues))


def agreement(given: argparse.Namespace) -> None:
    """Prints the table, and puts it into the file of --markdown."""
    progress = Progress.auto()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        refusals = Bench.of(
            RefusalStage.read([given.data / REFUSALS]), _plan("refusal", "model,prompt", given), given, out
        )
        judged = judged_refusals(refusals, progress)
        lines = [*refusal_lines(refusals, judged), *preference_lines(given, out, progress)]
    section = "\n".join([OPENING, "", HEAD, *lines, "", thresholds_told(judged.thresholds)])
    print(section)
    if given.markdown:
        given.markdown.write_text(with_section(given.markdown.read_text(), section, "scorers-agreement"))


async def asked(file: Path, dial: DialName, dialogues: Sequence[Dialogue]) -> Array:
    """Levels of the one scorer of a scorers' file, [dialogues]; each distinct dialogue is asked once."""
    [(scorer, _)] = load_scorers(read_scorers(file).scorers)
    names = [_name(dialogue) for dialogue in dialogues]
    distinct = dict(zip(names, dialogues, strict=True))
    levels: dict[tuple[str, str], float] = {}
    try:
        for start in range(0, len(distinct), AT_ONCE):
            some = [*distinct][start : start + AT_ONCE]
            for name, scores in zip(some, await scorer.score([distinct[name] for name in some]), strict=True):
                level = scores.level(dial)
                assert level is not None, "rows without words are left out when they are read"
                levels[name] = level
    finally:
        await scorer.close()
    return np.array([levels[name] for name in names])


def material_of(encoder: Encoder, dialogues: Sequence[Dialogue], plan: FeaturePlan) -> Material:
    """Material of dialogues of which many are the same: each is encoded once."""
    names = [_name(dialogue) for dialogue in dialogues]
    distinct = dict(zip(names, dialogues, strict=True))
    place = {name: number for number, name in enumerate(distinct)}
    return read_material(encoder, list(distinct.values()), plan).take([place[name] for name in names])


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Rows held out with the model that the fold held out: what is refused as served, and its class; [rows]."""

    at: list[int]
    models: list[str]
    refused: Array
    classes: Places
    thresholds: list[Thresholds]


def judged_refusals(bench: Bench[RefusalStage], progress: Progress) -> Judged:
    """Every row judged by a scorer, and by thresholds, that saw neither its model nor its prompt."""
    at: list[int] = []
    models: list[str] = []
    refused, classes, thresholds = [], [], []
    planned = bench.folds()
    with progress.task("refusals", len(planned), unit="folds") as task:
        for fold in planned:
            thresholds.append(chosen_thresholds(bench, fold.train))
            levels = bench.served(bench.fit(fold.train), [bench.stage.rows[row].dialogue for row in fold.test])
            refused.append(1 - levels)
            classes.append(thresholds[-1].classes(refused[-1]))
            at += fold.test
            models += [fold.model] * len(fold.test)
            task.advance()
    return Judged(at, models, np.concatenate(refused), np.concatenate(classes), thresholds)


def refused_unseen(bench: Bench[RefusalStage], progress: Progress) -> tuple[list[int], list[str], Array]:
    """Each row, the model that its fold held out, and how much of it is refused, by a head that never saw either."""
    at: list[int] = []
    models: list[str] = []
    refused = []
    with progress.task("refusals", len(bench.folds()), unit="folds") as task:
        for fold in bench.folds():
            logits = bench.fit(fold.train).logits(bench.material.take(fold.test))
            refused.append(np.array(levels_of("refusal", logits)))
            at += fold.test
            models += [fold.model] * len(fold.test)
            task.advance()
    return at, models, np.concatenate(refused)


def chosen_thresholds(bench: Bench[RefusalStage], at: Sequence[int]) -> Thresholds:
    """Those that do best on these rows when each model is judged by a head that saw the others alone."""
    rows = [bench.stage.rows[row] for row in at]
    refused = np.zeros(len(at))
    for fold in folds(rows, hold_outs("model"), parts=1, seed=bench.plan.seed):
        head = bench.fit([at[row] for row in fold.train])
        logits = head.logits(bench.material.take([at[row] for row in fold.test]))
        refused[list(fold.test)] = levels_of("refusal", logits)
    return best_thresholds(refused, np.array([row.label for row in rows]))


def best_thresholds(refused: Array, labels: Places) -> Thresholds:
    """The thresholds by which most rows are right; of equally good ones the middle."""
    tried = [Thresholds(low, high) for low in STEPS for high in STEPS if low <= high]
    right = np.array([(each.classes(refused) == labels).mean() for each in tried])
    best = [tried[place] for place in np.flatnonzero(right == right.max())]
    return best[len(best) // 2]


def aucs(
    levels: Array, labels: Places, prompts: Sequence[str], models: Sequence[str], *, seed: int
) -> dict[str, Figure]:
    """How often a full refusal is above a compliance of the same model, ties half: by model, and their mean.

    Intervals resample whole prompts.
    """
    names, places = np.unique(np.array(prompts), return_inverse=True)
    draws = Bootstrap.over(len(names), resamples=RESAMPLES, seed=seed).draws
    kinds = np.array(models)
    by_model = {model: _auc(levels, labels, places, draws, kinds == model) for model in sorted({*models})}
    found = {model: figure(values) for model, values in by_model.items()}
    return {**found, "mean": figure(np.mean(list(by_model.values()), axis=0))}


def refusal_lines(bench: Bench[RefusalStage], found: Judged) -> Iterator[str]:
    """Three classes by thresholds on the level, and how well the level parts two of them."""
    rows = [bench.stage.rows[at] for at in found.at]
    labels, prompts = np.array([row.label for row in rows]), [row.prompt for row in rows]
    strings = np.array(matched([row.answer for row in rows]))

    def line(model: str, what: str, ours: Share | Figure, theirs: Share | Figure) -> str:
        name = "mean over models" if model == MEAN else model
        count = found.models.count(model) or len(rows)
        return _line(f"refusals, {name}", "model, prompt", count, what, ours, [("string matching", theirs)])

    right, by_strings = (
        shares((each == labels).astype(float), prompts, found.models, seed=bench.plan.seed)
        for each in (found.classes, strings)
    )
    for model, share in right.items():
        yield line(model, "three classes", share, by_strings[model])
    parted, parted_by_strings = (
        aucs(each, labels, prompts, found.models, seed=bench.plan.seed)
        for each in (found.refused, (strings == FULL_REFUSAL).astype(float))
    )
    for model, area in parted.items():
        yield line(model, "AUC, full refusal against compliance", area, parted_by_strings[model])


def preference_lines(given: argparse.Namespace, out: Path, progress: Progress) -> Iterator[str]:
    """Pairs that the levels of both answers put in the order of the labels."""
    for name, dial, file, hold_out in PREFERENCES:
        stage = PreferenceStage.read([given.data / file])
        bench = Bench.of(stage, _plan("preference", hold_out, given), given, out, dial=dial)
        at, ours, better = judged_pairs(bench, progress, name)
        pairs = [stage.rows[place] for place in at]
        prompts = [pair.prompt for pair in pairs]
        known = {"shorter answer": _shorter(pairs)} | ({} if better is None else {"better model": better})
        told = {
            what: shares(won, prompts, [MEAN] * len(pairs), seed=given.seed)[MEAN]
            for what, won in {"": ours, **known}.items()
        }
        mine = told.pop("")
        yield _line(name, hold_out.replace(",", ", "), len(pairs), "pairs in their order", mine, [*told.items()])


def judged_pairs(bench: Bench[PreferenceStage], progress: Progress, name: str) -> tuple[list[int], Array, Array | None]:
    """Places of pairs held out, whether they are in their order by the levels served, and by who answered.

    The last is by which of the two models won more of the pairs trained on; None where nobody says who answered, or
    where a model is held out itself.
    """
    at: list[int] = []
    ours, better = [], []
    planned = bench.folds()
    with progress.task(name, len(planned), unit="folds") as task:
        for fold in planned:
            at += fold.test
            ours.append(_won(bench, fold))
            better.append(better_model(bench.stage.rows, fold))
            task.advance()
    known = "model" not in bench.plan.hold_out and all(row.models for row in bench.stage.rows)
    return at, np.concatenate(ours), np.concatenate(better) if known else None


def better_model(pairs: Sequence[PreferencePair], fold: Fold) -> Array:
    """Whether the chosen answer is of the model that won the greater share of its pairs trained on; ½ if unknown."""
    won: dict[str, list[float]] = defaultdict(list)
    for pair in (pairs[at] for at in fold.train):
        for model, each in zip(pair.models, (1.0, 0.0), strict=False):
            won[model].append(each)
    rate = {model: fmean(each) for model, each in won.items()}
    tested = [[rate.get(model, 0.5) for model in pairs[at].models] or [0.5, 0.5] for at in fold.test]
    return _order(np.array([one - other for one, other in tested]))


def _won(bench: Bench[PreferenceStage], fold: Fold) -> Array:
    pairs = [bench.stage.rows[row] for row in fold.test]
    levels = bench.served(bench.fit(fold.train), [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)])
    return _order(levels[: len(pairs)] - levels[len(pairs) :])


def _shorter(pairs: Sequence[PreferencePair]) -> Array:
    return _order(np.array([float(len(pair.rejected.answer) - len(pair.chosen.answer)) for pair in pairs]))


def _order(gaps: Array) -> Array:
    """1 where a gap is above 0, half where it is 0."""
    found: Array = (np.sign(gaps) + 1) / 2
    return found


def _auc(levels: Array, labels: Places, places: Places, draws: Array, of_model: NDArray[np.bool_]) -> Array:
    """[1 + resamples]; NaN where a resample has no refusal, or no compliance."""
    refusals, others = (np.flatnonzero(of_model & (labels == label)) for label in (FULL_REFUSAL, FULL_COMPLIANCE))
    above = _order(levels[refusals][:, None] - levels[others][None])
    one, two = draws[:, places[refusals]], draws[:, places[others]]
    pairs = one.sum(1) * two.sum(1)
    found: Array = np.divide(((one @ above) * two).sum(1), pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)
    return found


def thresholds_told(chosen: Sequence[Thresholds]) -> str:
    low, high = (_spread([each.low for each in chosen]), _spread([each.high for each in chosen]))
    return (
        "The classes are read off the level by two thresholds of what is refused (1 - the served level): compliance "
        f"below {low}, full refusal from {high} (median over folds, least to most), partial refusal between. They are "
        "chosen in each fold by the rows trained on; each model of these is judged by a head that saw the others alone."
    )


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _line(
    name: str, held: str, rows: int, what: str, ours: Share | Figure, others: Sequence[tuple[str, Share | Figure]]
) -> str:
    baselines = "; ".join(f"{_cell(each)} {baseline}" for baseline, each in others)
    return f"| {name} | {held} | {rows} | {what} | {_cell(ours)} | {baselines} |"


def _cell(found: Share | Figure) -> str:
    return f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"


def _plan(kind: TextScorerKind, hold_out: str, given: argparse.Namespace) -> TextScorerPlan:
    return TextScorerPlan(kind, hold_outs(hold_out), seed=given.seed)


def _name(dialogue: Dialogue) -> tuple[str, str]:
    """All that a scorer of real text reads."""
    return dialogue.question, dialogue.answer
