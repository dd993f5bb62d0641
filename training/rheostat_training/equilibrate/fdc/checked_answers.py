"""Asks a model for answers of a form, checks each, and asks again for those that do not fit; what fails is counted."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from rheostat_training.generate import Sampler, SamplingPlan, generate
from rheostat_training.limits import SEEDS
from rheostat_training.progress import Progress
from rheostat_training.rows import Request, Sample, read_rows

AGAIN_TEMPERATURE: Final = 0.7
"""At which later tries are drawn at least: at 0 the same answer would come again."""

Answer = TypeVar("Answer")


class Unusable(ValueError):
    """An answer is not of the form that was asked for; the message says why, and holds nothing of the answer."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[Answer]):
    """Checked answers by the ids of their requests, and why the others have none."""

    answers: Mapping[str, Answer]
    failed: Mapping[str, str]


def ask_checked(
    sampler: Sampler,
    requests: Sequence[Request],
    plan: SamplingPlan,
    check: Callable[[str], Answer],
    folder: Path,
    *,
    tries: int,
    told: str,
    progress: Progress,
) -> Answered[Answer]:
    """Asks each request once, and those whose answer `check` finds Unusable up to `tries` times in all.

    Each try is a folder of its own that survives a kill. The first is drawn as `plan` says, later ones by other seeds.
    """
    answers: dict[str, Answer] = {}
    failed: dict[str, str] = {}
    left = list(requests)
    for number in range(tries):
        if not left:
            break
        again = f"{told}, try {number + 1}" if number else told
        file = generate(sampler, left, _plan(plan, number), folder / f"try-{number}", told=again, progress=progress)
        for row in read_rows(file, Sample):
            try:
                answers[row.prompt_id] = check(row.answer)
                failed.pop(row.prompt_id, None)
            except Unusable as exc:
                failed[row.prompt_id] = str(exc) if row.finished else f"{exc}; it ran into max_new_tokens"
        left = [request for request in left if request.id in failed]
    return Answered(answers, failed)


def _plan(plan: SamplingPlan, number: int) -> SamplingPlan:
    once = replace(plan, samples=1)
    if not number:
        return once
    temperature = max(plan.temperature, AGAIN_TEMPERATURE)
    return replace(once, seed=(plan.seed + number) % SEEDS, temperature=temperature)


def last_object(answer: str) -> dict[str, Any]:
    """The last JSON object in an answer: a model may think aloud before it, or put it into a fence.

    Raises:
        Unusable: there is none.
    """
    decoder = json.JSONDecoder()
    found: dict[str, Any] | None = None
    at = answer.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            end = at + 1
        at = answer.find("{", end)
    if found is None:
        raise Unusable("the answer holds no JSON object")
    return found


def checked_fields(found: Mapping[str, Any], fields: Mapping[str, type]) -> Mapping[str, Any]:
    """The object, if it has these fields in this order, each of its type, and no others.

    Raises:
        Unusable: it has not, or a text is empty.
    """
    if list(found) != list(fields):
        raise Unusable(f"the answer's object must have the fields {', '.join(fields)} in this order, and no others")
    for name, kind in fields.items():
        value = found[name]
        if not isinstance(value, kind) or (isinstance(value, str) and not value.strip()):
            right = "true or false" if kind is bool else "text that is not empty"
            raise Unusable(f"{name} is of type {type(value).__name__}; it must be {right}")
    return found
