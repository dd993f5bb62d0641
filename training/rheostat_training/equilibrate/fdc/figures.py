"""What a classifier of groups is worth on prompts that it did not see, in figures and in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rheostat_training.equilibrate.fdc.classifier import CLASSES

RESAMPLES: Final = 2000

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What was found for each row, places in CLASSES, by heads that did not see its prompt.

    `benign` is the share of benign prompts, held out too, that were found to be of no risk; None without any.
    """

    classifier: Labels
    keywords: Labels
    majority: Labels
    benign: float | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval, from resampling prompts."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: NDArray[np.float64]) -> "Figure":
        low, high = np.quantile(resampled, (0.025, 0.975))
        return cls(round(value, 4), round(float(low), 4), round(float(high), 4))

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Macro-F1 of the classifier and, on the same rows, of two baselines.

    `keywords` is a head on the words alone, `majority` the commonest group. `margin` is how far the classifier's
    macro-F1 is above that of the keywords, paired. `agreement` is the macro-F1 of another label of the same prompt,
    over the rows whose prompt was labelled several times: about as well as a classifier can do by these labels.
    `confusion` has a row for each group as labelled and a column as found, in the order of `classes`.
    """

    classes: tuple[str, ...]
    rows: int
    prompts: int
    macro_f1: Figure
    keywords: Figure
    majority: Figure
    margin: Figure
    f1: Mapping[str, float | None]
    confusion: list[list[int]]
    agreement: float | None
    repeated_rows: int
    benign: float | None


@dataclass(frozen=True, slots=True)
class GroupReport:
    """The figures, and what they are of: `data` are the files' names and digests in their order."""

    figures: GroupFigures
    left_out: Mapping[str, int]
    benign_prompts: int
    data: list[list[str]]
    encoder: str

    def told(self) -> str:
        """The report in lines for a person."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        found = self.figures
        left_out = ", ".join(f"{count:,} {what}" for what, count in self.left_out.items())
        yield f"{found.rows:,} rows of {found.prompts:,} prompts; left out: {left_out}"
        yield "macro-F1 on prompts held out, with 95 % intervals from resampling prompts:"
        yield f"  classifier {found.macro_f1}"
        yield f"  keywords   {found.keywords}"
        yield f"  majority   {found.majority}"
        yield f"  classifier above keywords by {found.margin}"
        yield "F1: " + ", ".join(f"{name} {value:.3f}" for name, value in found.f1.items() if value is not None)
        if found.agreement is not None:
            yield f"another label of the same prompt: {found.agreement:.3f}, over {found.repeated_rows:,} rows"
        if found.benign is not None:
            yield f"benign prompts found to be of no risk: {found.benign:.3f} of {self.benign_prompts:,}"
        yield f"as labelled, and found as {', '.join(found.classes)}:"
        yield from (f"  {name:4} {counts}" for name, counts in zip(found.classes, found.confusion, strict=True))


def macro_f1(wanted: Labels, found: Labels, counts: NDArray[np.int64] | None = None) -> float:
    """The mean F1 of the groups that some row has, wanted or found; `counts` take each row so many times."""
    return float(np.nanmean(f1_scores(wanted, found, counts)))


def f1_scores(wanted: Labels, found: Labels, counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """F1 = 2·hits / (wanted + found) of each of CLASSES; NaN for one that no row has. [rows], [rows] -> [4]."""
    table = confusion(wanted, found, counts)
    total = table.sum(0) + table.sum(1)
    scores: NDArray[np.float64] = np.divide(
        2 * table.diagonal(), total, out=np.full(len(total), np.nan), where=total > 0
    )
    return scores


def confusion(wanted: Labels, found: Labels, counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """How many rows are wanted as one group and found as another. [rows], [rows] -> [4, 4]."""
    size = len(CLASSES)
    return np.bincount(wanted * size + found, weights=counts, minlength=size**2).reshape(size, size).astype(np.float64)


def figures(keys: Sequence[str], wanted: Labels, held_out: HeldOut, *, seed: int) -> GroupFigures:
    """Figures of rows, of which those with equal `keys` are of one prompt and are resampled together."""
    names, of = np.unique(np.array(keys), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    found = {"macro_f1": held_out.classifier, "keywords": held_out.keywords, "majority": held_out.majority}
    value = {name: macro_f1(wanted, labels) for name, labels in found.items()}
    resampled = {
        name: np.array([macro_f1(wanted, labels, draw[of]) for draw in draws]) for name, labels in found.items()
    }
    agreement, repeated = _agreement(of.astype(np.int64), wanted)
    scores = f1_scores(wanted, held_out.classifier)
    return GroupFigures(
        classes=tuple(group.value for group in CLASSES),
        rows=len(wanted),
        prompts=len(names),
        macro_f1=Figure.of(value["macro_f1"], resampled["macro_f1"]),
        keywords=Figure.of(value["keywords"], resampled["keywords"]),
        majority=Figure.of(value["majority"], resampled["majority"]),
        margin=Figure.of(value["macro_f1"] - value["keywords"], resampled["macro_f1"] - resampled["keywords"]),
        f1={
            group.value: None if np.isnan(score) else round(float(score), 4)
            for group, score in zip(CLASSES, scores, strict=True)
        },
        confusion=confusion(wanted, held_out.classifier).astype(int).tolist(),
        agreement=agreement,
        repeated_rows=repeated,
        benign=held_out.benign,
    )


def _agreement(of: Labels, wanted: Labels) -> tuple[float | None, int]:
    """Macro-F1 of a row's label told by the other labels of its prompt, each in turn; and how many rows have others."""
    first, second = np.nonzero((of[:, None] == of[None, :]) & ~np.eye(len(of), dtype=bool))
    if not len(first):
        return None, 0
    return round(macro_f1(wanted[first], wanted[second]), 4), len(np.unique(first))
