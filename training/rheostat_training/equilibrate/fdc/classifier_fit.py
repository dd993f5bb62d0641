"""Fits the classifier of groups on labelled prompts, and measures it on prompts that it did not see."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rheostat_server.scorers.text.encoder import Encoder
from rheostat_server.scorers.text.ngrams import counter
from rheostat_training.equilibrate.fdc.classifier import (
    CLASSES,
    LinearHead,
    Matrix,
    prompt_vectors,
    save_classifier,
)
from rheostat_training.equilibrate.fdc.figures import GroupReport, HeldOut, Labels, figures
from rheostat_training.equilibrate.fdc.group import Group, LabelledText, read_group_labels
from rheostat_training.limits import STRICT, a_seed, above_zero, at_least, refuse
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.prompts import PromptSource, read_prompts
from rheostat_training.publish import with_ordinary_permissions
from rheostat_training.resume import INPUTS_FILE, claim, plan_facts, read_value, write_value
from rheostat_training.scorers.labelled import file_digest
from rheostat_training.sources import model_folder
from rheostat_training.work_folder import alone_in, refuse_foreign

CLASSIFIER_FOLDER: Final = "classifier"
FIT_REPORT_FILE: Final = "report.json"
WRITTEN: Final = (CLASSIFIER_FOLDER, FIT_REPORT_FILE)
MOST_STEPS: Final = 3000
NONE: Final = CLASSES.index(Group.NONE)


@dataclass(frozen=True, slots=True)
class GroupFitPlan:
    """How the head is fitted.

    `inverse_penalty` is scikit-learn's C. A row weighs n^-`balance` where n rows have its group: 0 takes the groups as
    they come, 1 makes them equal. Benign prompts beside the labels weigh, all together, `benign_weight` times what the
    labelled rows of no risk do. Prompts are held out in `parts` equal parts.
    """

    __pydantic_config__ = STRICT

    inverse_penalty: float = 1.0
    balance: float = 0.8
    benign_weight: float = 0.5
    parts: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(
            above_zero(self, "inverse_penalty"),
            at_least(self, 0, "balance", "benign_weight"),
            at_least(self, 2, "parts"),
            a_seed(self),
        )


def fit_head(vectors: Matrix, labels: Labels, plan: GroupFitPlan, benign: Matrix | None = None) -> LinearHead:
    """Multinomial logistic regression; vectors [rows, columns], labels [rows] in the order of CLASSES.

    Raises:
        ValueError: a group has no row.
    """
    counts = np.bincount(labels, minlength=len(CLASSES))
    if missing := [group.value for group, count in zip(CLASSES, counts, strict=True) if not count]:
        raise ValueError(f"no row is of group {', '.join(missing)}; every group needs some to be learned")
    stacked = vectors if benign is None else np.concatenate([vectors, benign])
    return _weighed_fit(stacked, labels, plan)


def _weighed_fit(vectors: Any, labels: Labels, plan: GroupFitPlan) -> LinearHead:
    """The head over a dense or sparse matrix, whose rows beyond the labels are benign prompts."""
    weights = (len(labels) / np.bincount(labels) / len(CLASSES))[labels] ** plan.balance
    if benign := vectors.shape[0] - len(labels):
        each = plan.benign_weight * weights[labels == NONE].sum() / benign
        labels = np.concatenate([labels, np.full(benign, NONE)])
        weights = np.concatenate([weights, np.full(benign, each)])
    model = LogisticRegression(C=plan.inverse_penalty, max_iter=MOST_STEPS, random_state=plan.seed)
    model.fit(vectors, labels, sample_weight=weights)
    return LinearHead(np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64))


def fit_groups(
    data: Sequence[Path],
    encoder_name: str,
    plan: GroupFitPlan,
    out: Path,
    *,
    benign: Sequence[Path] = (),
    progress: Progress | None = None,
) -> GroupReport:
    """Fits into `out/classifier` and returns what is in `out/report.json`.

    `benign` are files of prompts of no risk, everyday ones, which the released labels have few of. They are learned
    from beside the labels, and not among the rows that macro-F1 is of.

    Raises:
        BadRow, UnreadablePrompts: a file does not fit.
        AnotherRun: `out` holds the work of other data, another encoder or another plan.
        Busy: another fit is at work in `out`.
        NotOurs: `out` holds files of somebody else's by the names that are written here.
        BadConfig: the encoder is no folder, and no hub has it or none can be reached.
        ValueError: a group has no row, or there are fewer prompts than parts.
    """
    with alone_in(out, what="fit", option="--out"):
        if not (out / INPUTS_FILE).exists():
            refuse_foreign(out, WRITTEN, what="fit", option="--out")
        return _fitted(data, encoder_name, plan, out, benign, progress or Progress.auto())


def _fitted(
    data: Sequence[Path], encoder_name: str, plan: GroupFitPlan, out: Path, benign: Sequence[Path], shown: Progress
) -> GroupReport:
    labels = read_group_labels(data)
    known = {row.key for row in labels.rows}
    everyday = [text for path in benign for text in _texts(path, known)]
    encoder = Encoder.load(model_folder(encoder_name))
    digest = LoadedModel(encoder.model, encoder.tokenizer).digest()
    files, apart_files = ([[path.name, file_digest(path)] for path in paths] for paths in (data, benign))
    asked = {"plan": plan_facts(plan), "data": files, "benign": apart_files, "encoder": digest}
    claim(out, {"stage": "group classifier", **asked})
    if (out / FIT_REPORT_FILE).exists():
        done: GroupReport = read_value(out / FIT_REPORT_FILE, GroupReport)
        return done
    texts = [row.text for row in labels.rows]
    with shown.task("encode", len(texts) + len(everyday), unit="prompts") as task:
        vectors = prompt_vectors(encoder, texts, told=task.advance)
        apart = prompt_vectors(encoder, everyday, told=task.advance)
    wanted = np.array([CLASSES.index(row.group) for row in labels.rows], np.int64)
    held_out = _hold_out(labels.rows, vectors, wanted, everyday, apart, plan, shown)
    found = figures([row.key for row in labels.rows], wanted, held_out, seed=plan.seed)
    _replace(encoder, fit_head(vectors, wanted, plan, apart), out / CLASSIFIER_FOLDER)
    report = GroupReport(found, labels.left_out, len(everyday), [*files, *apart_files], digest)
    write_value(out / FIT_REPORT_FILE, report, GroupReport)
    return report


def _texts(path: Path, known: set[str]) -> list[str]:
    """The prompts of a file but for those that have a label."""
    found = (prompt.text for prompt in read_prompts(PromptSource(str(path))).prompts.values())
    return [text for text in found if LabelledText(text, Group.NONE).key not in known]


def _hold_out(
    rows: Sequence[LabelledText],
    vectors: Matrix,
    wanted: Labels,
    benign_texts: Sequence[str],
    benign: Matrix,
    plan: GroupFitPlan,
    shown: Progress,
) -> HeldOut:
    """Every row judged by heads that saw neither it nor another row of its prompt."""
    texts, everyday = (np.array(each, dtype=object) for each in ([row.text for row in rows], benign_texts))
    part, benign_part = _parts([row.key for row in rows], plan), np.arange(len(benign)) % plan.parts
    classifier, keywords, majority = (np.zeros_like(wanted) for _ in range(3))
    right = 0
    with shown.task("hold out", plan.parts, unit="parts") as task:
        for number in range(plan.parts):
            train, test, apart = part != number, part == number, benign_part == number
            head = fit_head(vectors[train], wanted[train], plan, benign[~apart])
            classifier[test] = head.probabilities(vectors[test]).argmax(1)
            by_keywords = _by_keywords(texts[train].tolist(), wanted[train], everyday[~apart].tolist(), plan)
            keywords[test] = by_keywords(texts[test].tolist())
            majority[test] = np.bincount(wanted[train]).argmax()
            right += int((head.probabilities(benign[apart]).argmax(1) == NONE).sum())
            task.advance()
    return HeldOut(classifier, keywords, majority, right / len(benign) if len(benign) else None)


def _by_keywords(
    texts: Sequence[str], labels: Labels, benign: Sequence[str], plan: GroupFitPlan
) -> Callable[[Sequence[str]], Labels]:
    """The same head, of the same plan and benign prompts, on words and pairs of words (TF-IDF) alone."""
    learnt = _lower([*texts, *benign])
    words: TfidfVectorizer = counter(fewest_rows=2).fit(learnt)
    head = _weighed_fit(words.transform(learnt), labels, plan)

    def found(asked: Sequence[str]) -> Labels:
        counts: Any = words.transform(_lower(asked))
        likeliest: Labels = head.probabilities(counts).argmax(1)
        return likeliest

    return found


def _lower(texts: Sequence[str]) -> list[str]:
    return [text.lower() for text in texts]


def _parts(keys: Sequence[str], plan: GroupFitPlan) -> Labels:
    """The part of each row; equal prompts are in one."""
    names = sorted(set(keys))
    if len(names) < plan.parts:
        raise ValueError(f"parts is {plan.parts}, and there are {len(names)} different prompts; give fewer parts")
    order = random.Random(plan.seed).sample(names, len(names))
    part_of = {name: number % plan.parts for number, name in enumerate(order)}
    return np.array([part_of[key] for key in keys], np.int64)


def _replace(encoder: Encoder, head: LinearHead, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_classifier(encoder, head, partial)
    shutil.rmtree(folder, ignore_errors=True)
    with_ordinary_permissions(partial).replace(folder)
