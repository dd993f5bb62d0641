"""The rows that pass between the stages, and their JSON lines."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rheostat_server.contract.dials import Dials

Row = TypeVar("Row")


class Message(TypedDict):
    """One turn of a conversation, as OpenAI writes it."""

    role: str
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends in what the user asks."""

    id: str
    messages: Messages

    @classmethod
    def user(cls, id: str, text: str) -> "Prompt":
        return cls(id, ({"role": "user", "content": text},))

    @property
    def text(self) -> str:
        """The last user message."""
        return next(message["content"] for message in reversed(self.messages) if message["role"] == "user")


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to be answered; `dials` are those asked for, which its answers are kept under.

    They reach the model as control text unless `written` is false: where they are already in the messages, as a worded
    instruction, or are not to reach it at all.
    """

    id: str
    messages: Messages
    dials: Dials | None = None
    written: bool = True

    @property
    def written_dials(self) -> Dials | None:
        return self.dials if self.written else None


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer that a model gave; `finished` is false where it ran into the token limit.

    `least` is the least probability that the model gave one of its tokens, past those that settle what kind of answer
    it becomes (`SamplingPlan.settling_tokens`); None where the engine does not tell.
    """

    prompt_id: str
    sample: int
    answer: str
    tokens: int
    finished: bool
    dials: Dials | None = None
    least: float | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer and its scores in [0, 1]; None where a scorer could not judge. `least` is its sample's."""

    prompt_id: str
    answer: str
    safety: float | None
    helpfulness: float | None
    dials: Dials | None = None
    least: float | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """An answer to learn under `dials`; the scores are those it was chosen by."""

    prompt_id: str
    answer: str
    dials: Dials
    safety: float
    helpfulness: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, the chosen one preferred; under `dials`, whose control text the prompt then has.

    `aim` is what the loss wants of the margin between them, beyond its sign: see `losses.dpo` and `losses.bfpo`.
    """

    prompt_id: str
    chosen: str
    rejected: str
    dials: Dials | None = None
    aim: float = 0.0


class BadRow(ValueError):
    """A line of a JSON lines file does not fit its row; the message names file and line."""


def read_rows(path: Path, row: type[Row]) -> Iterator[Row]:
    """The rows of a JSON lines file.

    Raises:
        BadRow: a line is not JSON or does not fit.
    """
    adapter = TypeAdapter(row)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield adapter.validate_json(line)
            except ValidationError as exc:
                raise BadRow(f"{path}, line {number} is not a {row.__name__}: {exc}") from exc


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """Writes a JSON lines file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    adapters: dict[type, TypeAdapter[object]] = {}
    with partial.open("wb") as file:
        for row in rows:
            adapter = adapters.setdefault(type(row), TypeAdapter(type(row)))
            file.write(adapter.dump_json(row) + b"\n")
    return partial.replace(path)


def prompt_of(prompts: Mapping[str, Prompt], id: str) -> Prompt:
    """The prompt of a row.

    Raises:
        ValueError: it is not there.
    """
    if id not in prompts:
        raise ValueError(f"a row has prompt_id {id!r}, which is not among the {len(prompts)} prompts")
    return prompts[id]


def by_id(prompts: Iterable[Prompt]) -> dict[str, Prompt]:
    """Prompts by their id.

    Raises:
        ValueError: two prompts have one id.
    """
    result: dict[str, Prompt] = {}
    for prompt in prompts:
        if prompt.id in result:
            raise ValueError(f"prompt id {prompt.id!r} is used twice; ids must be unique")
        result[prompt.id] = prompt
    return result
