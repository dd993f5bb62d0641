"""What a scorer is worth on rows it never saw: folds by model and by prompt, and agreement with its interval."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

HoldOut = Literal["model", "prompt"]
ALL_MODELS = "all"
RESAMPLES = 4000


class Labelled(Protocol):
    """A row that says which prompt it answers, and who answered."""

    @property
    def prompt(self) -> str: ...

    @property
    def models(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Fold:
    """Positions of rows to fit on and of rows to judge; `model` is whom the fit never saw."""

    model: str
    train: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of rows with its 95 % interval, from resampling prompts."""

    value: float
    low: float
    high: float
    rows: int


def hold_outs(text: str) -> frozenset[HoldOut]:
    """What to hold out, written as 'model,prompt'.

    Raises:
        ValueError: something else is named, or nothing.
    """
    known = get_args(HoldOut)
    named = {part.strip() for part in text.split(",") if part.strip()}
    if not named or named - {*known}:
        raise ValueError(f"hold_out is {text!r}; it names one or both of {', '.join(known)}, with a comma between")
    return frozenset(what for what in known if what in named)


def folds(rows: Sequence[Labelled], hold_out: frozenset[HoldOut], *, parts: int, seed: int) -> Iterator[Fold]:
    """Every row is tested exactly once for each of its models.

    By model and prompt at once a fit sees no row of the model and no row of the prompts that it is tested on.

    Raises:
        ValueError: there are too few models or prompts to hold any out, or none of the rows is left to fit on.
    """
    prompts = sorted({row.prompt for row in rows})
    models = sorted({model for row in rows for model in row.models}) if "model" in hold_out else [ALL_MODELS]
    if "model" in hold_out and len(models) < 2:
        raise ValueError(f"hold_out names model, and the rows are of {len(models)} models; 2 are needed")
    if "prompt" in hold_out and len(prompts) < parts:
        raise ValueError(f"hold_out names prompt, and the rows have {len(prompts)} prompts; {parts} are needed")
    order = random.Random(seed).sample(prompts, len(prompts))
    part_of = {prompt: number % parts for number, prompt in enumerate(order)}
    for model in models:
        for part in range(parts) if "prompt" in hold_out else (None,):
            unseen = [(model == ALL_MODELS or model in row.models, part in (None, part_of[row.prompt])) for row in rows]
            train = tuple(
                at for at, (of_model, of_part) in enumerate(unseen) if not _met(of_model, of_part, model, part)
            )
            test = tuple(at for at, both in enumerate(unseen) if all(both))
            if test and not train:
                raise ValueError(
                    f"hold_out names {' and '.join(sorted(hold_out))}, and without {model} no row is left to fit on; "
                    "give rows of more models, or hold out prompt alone"
                )
            if test:
                yield Fold(model, train, test)


def _met(of_model: bool, of_part: bool, model: str, part: int | None) -> bool:
    return (model != ALL_MODELS and of_model) or (part is not None and of_part)


def shares(right: NDArray[np.float64], prompts: Sequence[str], models: Sequence[str], *, seed: int) -> dict[str, Share]:
    """The share of rows that are right, by model, and the mean over models as "mean".

    Intervals are percentiles of a bootstrap that draws whole prompts, since answers to one prompt go together.
    """
    names, prompt_at = np.unique(np.array(prompts), return_inverse=True)
    kinds, model_at = np.unique(np.array(models), return_inverse=True)
    total, hits = np.zeros((2, len(names), len(kinds)))
    np.add.at(total, (prompt_at, model_at), 1.0)
    np.add.at(hits, (prompt_at, model_at), right)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    resampled = (draws @ hits) / np.maximum(draws @ total, 1)
    found = hits.sum(0) / total.sum(0)
    result = {str(kind): _share(found[at], resampled[:, at], int(total[:, at].sum())) for at, kind in enumerate(kinds)}
    return {**result, "mean": _share(found.mean(), resampled.mean(1), len(right))}


def _share(value: float, resampled: NDArray[np.float64], rows: int) -> Share:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Share(float(value), float(low), float(high), rows)
