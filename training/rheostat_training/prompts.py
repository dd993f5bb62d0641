"""The prompts of a run: read from a file, a folder, a data set or the demo world, checked, counted and told apart."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rheostat_training.conversation import NoColumn, NotAPrompt, find_column, is_unicode, messages_of
from rheostat_training.demo.asking import draw_prompts
from rheostat_training.demo.asking import held_out as demo_held_out
from rheostat_training.limits import STRICT, a_seed, refuse, where
from rheostat_training.prompt_files import RawRow, UnreadablePrompts, raw_rows
from rheostat_training.rows import Messages, Prompt

DEMO: Final = "demo"
DEMO_COUNT: Final = 800
DEMO_SPLITS: Final = ("train", "held-out")
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Where prompts come from.

    `source` is a file (.jsonl, .jsonl.gz, .json, .parquet, .csv), a folder of such files or one that `datasets` saved,
    the name of a data set on the Hugging Face Hub, or "demo" for the demo world, whose splits are "train" and
    "held-out". `column` names the field that holds the prompts where it cannot be told; `count` draws that many of
    them by `seed` (the demo world's held-out ones are the same for every seed); prompts longer than `max_characters`
    are left out. No code of a data set is ever run.
    """

    __pydantic_config__ = STRICT

    source: str
    split: str = "train"
    subset: str | None = None
    column: str | None = None
    count: int | None = None
    max_characters: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        count, most = self.count, self.max_characters
        refuse(
            where(not self.source, "source is empty; it must be a file, a folder, a data set's name, or 'demo'"),
            where(count is not None and count < 1, f"count is {count}; it must be at least 1"),
            where(most is not None and most < 1, f"max_characters is {most}; it must be at least 1"),
            a_seed(self),
            self._not_of_the_demo() if self.source == DEMO else (),
        )

    def _not_of_the_demo(self) -> Iterator[str]:
        known = ", ".join(DEMO_SPLITS)
        yield from where(self.split not in DEMO_SPLITS, f"split is {self.split!r}; the demo world's splits are {known}")
        for name, value in (("subset", self.subset), ("column", self.column)):
            yield from where(value is not None, f"{name} is {value!r}; the demo world has none")


@dataclass(frozen=True, slots=True)
class BadPrompt:
    """A row that was left out: its line (or its row, where there are no lines), its place in words, and the reason."""

    line: int
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class PromptsRead:
    """Prompts by id, and what was left out of how many rows; `undrawn` are good ones beyond `count`."""

    source: str
    prompts: dict[str, Prompt]
    rows: int
    duplicates: int = 0
    bad: tuple[BadPrompt, ...] = ()
    too_long: int = 0
    undrawn: int = 0

    @property
    def is_here(self) -> bool:
        """Whether the source is a file or folder of this machine."""
        return self.source != DEMO and Path(self.source).expanduser().exists()

    def summary(self) -> str:
        """One line for a person; which rows are bad, `bad` says."""
        left_out = {
            "duplicates": self.duplicates,
            "bad rows": len(self.bad),
            "too long": self.too_long,
            "not drawn": self.undrawn,
        }
        said = ", ".join(f"{count:,} {name}" for name, count in left_out.items() if count) or "none"
        return f"{self.source}: {len(self.prompts):,} prompts of {self.rows:,} rows; left out: {said}"


@dataclass(frozen=True, slots=True)
class _Good:
    row: RawRow
    key: str
    messages: Messages


def read_prompts(source: PromptSource) -> PromptsRead:
    """Reads, checks and counts.

    Of prompts that differ in spacing and letter case alone, the first is kept. A prompt's id is its row's `id` where
    every row has one of its own, and else follows from the prompt, so that it does not depend on the order of rows.
    `count` draws the same prompts in whatever order the rows stand, and a smaller count draws some of a larger one's.

    Raises:
        UnreadablePrompts: the source cannot be read, its column cannot be told, no prompt is left, or more than half
            of its rows are bad; the message shows the first of them.
    """
    if source.source == DEMO:
        return _demo(source)
    columns, rows = raw_rows(source.source, split=source.split, subset=source.subset, column=source.column)
    bad, good = _checked(rows, _column(columns, source, rows))
    short = [each for each in good if _fits(each.messages, source.max_characters)]
    distinct = _distinct(short)
    drawn = _drawn(distinct, source)
    found = PromptsRead(
        source.source,
        _by_id(distinct, drawn),
        rows=len(rows),
        duplicates=len(short) - len(distinct),
        bad=tuple(bad),
        too_long=len(good) - len(short),
        undrawn=len(distinct) - len(drawn),
    )
    _check_enough(found)
    return found


def split_prompts(
    prompts: Mapping[str, Prompt], held_out: float, seed: int = 0
) -> tuple[dict[str, Prompt], dict[str, Prompt]]:
    """Prompts to train on, and a share of about `held_out` that is kept from training.

    A prompt's side follows from what it says and from the seed: it does not change with the order of prompts or with
    others beside it, and two that say the same are on the same side.

    Raises:
        ValueError: the share is not above 0 and below 1, or one side would be empty.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; it must be a share above 0 and below 1")
    kept: dict[str, Prompt] = {}
    apart: dict[str, Prompt] = {}
    for id, prompt in prompts.items():
        side = apart if _point(f"held out {content_key(prompt.messages)}", seed) < held_out else kept
        side[id] = prompt
    if not kept or not apart:
        raise ValueError(
            f"held_out is {held_out}, which leaves {len(kept)} of {len(prompts)} prompts to train on and holds out "
            f"{len(apart)}; both must be at least 1: give more prompts, or another share or seed"
        )
    return kept, apart


def shuffled(prompts: Mapping[str, Prompt], seed: int = 0) -> dict[str, Prompt]:
    """Prompts in an order that follows from what each says and from the seed, not from the order that they stand in."""
    keys = {id: content_key(prompt.messages) for id, prompt in prompts.items()}
    return dict(sorted(prompts.items(), key=lambda item: (_point(f"order {keys[item[0]]}", seed), item[0])))


def without(prompts: Mapping[str, Prompt], others: Mapping[str, Prompt]) -> dict[str, Prompt]:
    """Prompts less those that say the same as one of the others."""
    apart = {content_key(prompt.messages) for prompt in others.values()}
    return {id: prompt for id, prompt in prompts.items() if content_key(prompt.messages) not in apart}


def content_key(messages: Messages) -> str:
    """A digest of what a conversation says, letter case and spacing left aside, in 64 hexadecimal digits."""
    total = hashlib.sha256()
    for message in messages:
        total.update(f"{message['role']}\0{' '.join(message['content'].casefold().split())}\0".encode())
    return total.hexdigest()


def _demo(source: PromptSource) -> PromptsRead:
    count = source.count or DEMO_COUNT
    prompts = draw_prompts(count, source.seed) if source.split == "train" else demo_held_out(count)
    kept = {id: prompt for id, prompt in prompts.items() if _fits(prompt.messages, source.max_characters)}
    found = PromptsRead(DEMO, kept, rows=count, too_long=count - len(kept))
    _check_enough(found)
    return found


def _column(columns: list[str], source: PromptSource, rows: list[RawRow]) -> str:
    if not columns:
        first = "; ".join(f"{row.place} {row.broken}" for row in rows[:SHOWN])
        raise UnreadablePrompts(f"{source.source} has no row that could be read, of {len(rows)}. {first}".strip())
    try:
        return find_column(columns, source.column)
    except NoColumn as exc:
        raise UnreadablePrompts(f"{source.source}: {exc}") from exc


def _checked(rows: Iterable[RawRow], column: str) -> tuple[list[BadPrompt], list[_Good]]:
    bad: list[BadPrompt] = []
    good: list[_Good] = []
    for row in rows:
        if row.broken:
            bad.append(BadPrompt(row.line, row.place, row.broken))
            continue
        try:
            messages = messages_of(_with_input(row, column), column)
        except NotAPrompt as exc:
            bad.append(BadPrompt(row.line, row.place, str(exc)))
        else:
            good.append(_Good(row, content_key(messages), messages))
    return bad, good


def _with_input(row: RawRow, column: str) -> object:
    """The prompt's value; an instruction in Alpaca's form goes on with its input, which is what it is about."""
    value, more = row.fields.get(column), row.fields.get("input")
    if column == "instruction" and isinstance(value, str) and isinstance(more, str) and more.strip():
        return f"{value}\n\n{more}"
    return value


def _fits(messages: Messages, limit: int | None) -> bool:
    return limit is None or sum(len(message["content"]) for message in messages) <= limit


def _distinct(good: Iterable[_Good]) -> list[_Good]:
    first: dict[str, _Good] = {}
    for each in good:
        first.setdefault(each.key, each)
    return list(first.values())


def _drawn(distinct: list[_Good], source: PromptSource) -> list[_Good]:
    if source.count is None or source.count >= len(distinct):
        return distinct
    order = sorted(distinct, key=lambda each: (_point(each.key, source.seed), each.key))
    chosen = {each.key for each in order[: source.count]}
    return [each for each in distinct if each.key in chosen]


def _point(key: str, seed: int) -> float:
    """A number from 0 up to 1 that looks random and follows from key and seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:6]) / 2**48


def _by_id(distinct: list[_Good], drawn: list[_Good]) -> dict[str, Prompt]:
    """Drawn prompts by id; whether the rows' own ids serve is seen from all of them, drawn or not."""
    own = [_own_id(each.row.fields.get("id")) for each in distinct]
    serve = all(own) and len(set(own)) == len(own)
    ids = {each.key: id if serve and id else f"prompt-{each.key[:16]}" for each, id in zip(distinct, own, strict=True)}
    return {ids[each.key]: Prompt(ids[each.key], each.messages) for each in drawn}


def _own_id(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    id = str(value).strip()
    return id if id and is_unicode(id) else None


def _check_enough(found: PromptsRead) -> None:
    shown = "; ".join(str(each) for each in found.bad[:SHOWN])
    if 2 * len(found.bad) > found.rows:
        raise UnreadablePrompts(
            f"{found.source}: {len(found.bad):,} of {found.rows:,} rows are bad, more than half. The first: {shown}"
        )
    if not found.prompts:
        raise UnreadablePrompts(f"no prompt is left. {found.summary()}")
