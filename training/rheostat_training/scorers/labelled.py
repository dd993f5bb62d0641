"""Human labels of real text: files of refusal-labelled answers and of preference pairs, read into rows."""

import gzip
import hashlib
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.text.folder import REFUSAL_CLASSES
from rheostat_training.rows import BadRow, Message, Messages, Prompt

PREFERENCE_GAP = 0.1

Fields = TypeVar("Fields")
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """An answer and what people called it; `label` counts in REFUSAL_CLASSES."""

    prompt: str
    answer: str
    label: int
    model: str

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def dialogue(self) -> Dialogue:
        return Dialogue(Prompt.user("", self.prompt).messages, self.answer)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two dialogues of which the first was preferred. `models` is empty where the file does not say who answered."""

    prompt: str
    chosen: Dialogue
    rejected: Dialogue
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Labels(Generic[Row]):
    """Rows of files that can be learned from, and how many others there were, by what they are."""

    rows: list[Row]
    left_out: Mapping[str, int]


class RefusalFields(TypedDict):
    """A line of a file of refusal labels, as XSTest's completions have them."""

    prompt: str
    completion: str
    label: Literal["1_full_compliance", "2_full_refusal", "3_partial_refusal"]
    model: str


class DialogueFields(TypedDict):
    """A line of a file of dialogue pairs, as HH-RLHF has them."""

    chosen: str
    rejected: str


class JudgedFields(TypedDict):
    """A line of a file of judged answers, as AlpacaEval has them: 1 where a reference wins, 2 where this one does."""

    prompt: str
    response: str
    model: str
    preference: float


def read_refusals(paths: Iterable[Path]) -> Labels[RefusalRow]:
    """Refusal labels of files; answers of no words are left out.

    Raises:
        BadRow: a line does not fit; the message names file and line.
    """
    rows = [
        RefusalRow(found["prompt"], found["completion"].strip(), REFUSAL_CLASSES.index(found["label"]), found["model"])
        for path in paths
        for _, found in _lines(path, RefusalFields)
    ]
    kept = [row for row in rows if row.answer]
    return Labels(kept, {"answers of no words": len(rows) - len(kept)})


def read_preferences(paths: Iterable[Path]) -> Labels[PreferencePair]:
    """Pairs of files of dialogue pairs or of judged answers; the file's first line tells which.

    Pairs with an answer of no words, or with twice the same answer, are left out.

    Raises:
        BadRow: a line does not fit; the message names file and line.
    """
    pairs = [pair for path in paths for pair in _pairs_of(path)]
    worded = [pair for pair in pairs if pair.chosen.is_answered and pair.rejected.is_answered]
    kept = [pair for pair in worded if pair.chosen.answer.strip() != pair.rejected.answer.strip()]
    left_out = {
        "pairs with an answer of no words": len(pairs) - len(worded),
        "pairs of equal answers": len(worded) - len(kept),
    }
    return Labels(kept, left_out)


def file_digest(path: Path) -> str:
    """The digest of a data file as it lies on disk."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _pairs_of(path: Path) -> Iterator[PreferencePair]:
    _, first = next(_lines(path, dict[str, Any]), (0, {}))
    if "preference" in first:
        yield from judged_pairs([found for _, found in _lines(path, JudgedFields)])
        return
    for number, found in _lines(path, DialogueFields):
        chosen, rejected = (_dialogue(found[side], path, number, side) for side in ("chosen", "rejected"))
        yield PreferencePair(chosen.messages[0]["content"], chosen, rejected)


def judged_pairs(answers: Sequence[JudgedFields], *, gap: float = PREFERENCE_GAP) -> Iterator[PreferencePair]:
    """Every two models' answers to one prompt whose preferences differ by at least `gap`."""
    by_prompt: dict[str, list[JudgedFields]] = {}
    for answer in answers:
        by_prompt.setdefault(answer["prompt"], []).append(answer)
    for prompt, given in by_prompt.items():
        messages = Prompt.user("", prompt).messages
        for pair in itertools.combinations(given, 2):
            lower, higher = sorted(pair, key=lambda answer: answer["preference"])
            if higher["preference"] - lower["preference"] >= gap:
                chosen, rejected = (Dialogue(messages, side["response"]) for side in (higher, lower))
                yield PreferencePair(prompt, chosen, rejected, (higher["model"], lower["model"]))


def _dialogue(text: str, path: Path, number: int, field: str) -> Dialogue:
    parts = re.split(r"\n\n(Human|Assistant): ?", text)
    roles = tuple("user" if speaker == "Human" else "assistant" for speaker in parts[1::2])
    if parts[0].strip() or len(roles) < 2 or roles[0] != "user" or roles[-1] != "assistant":
        right = "'\\n\\nHuman: …' turns first and a '\\n\\nAssistant: …' turn last"
        raise BadRow(f"{path}, line {number}: {field} is not a dialogue with {right}; its turns are {roles}")
    turns = [Message(role=role, content=content.strip()) for role, content in zip(roles, parts[2::2], strict=True)]
    messages: Messages = tuple(turns[:-1])
    return Dialogue(messages, turns[-1]["content"])


def _lines(path: Path, fields: type[Fields]) -> Iterator[tuple[int, Fields]]:
    """Lines that are not blank with their numbers from 1. What people wrote is kept out of the messages of errors."""
    adapter = TypeAdapter(fields)
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, adapter.validate_json(line)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise BadRow(f"{path}, line {number}: {where}: {first['msg']}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise BadRow(f"{path} cannot be unpacked after line {number}: {exc}") from exc
