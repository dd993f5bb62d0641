"""The groups of prompts of FDC, by two bits of a prompt, look-alikes beside them, and the rows that carry them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from rheostat_training.conversation import is_unicode
from rheostat_training.progress import Progress
from rheostat_training.prompt_files import ONLY_SPLIT, raw_rows
from rheostat_training.prompts import content_key
from rheostat_training.rows import BadRow, Messages, Prompt


class Group(StrEnum):
    """Explicit (EHD), implicit (IHD) and mixed (MHD) harmful prompts, those of no risk, and look-alikes.

    Source: arXiv 2502.11555; that it is two bits of a prompt, and which, is a reconstruction. Look-alikes are benign
    prompts that look risky, a kind of our own: people name them so, and neither classifier nor judge tells them.
    """

    EHD = "EHD"
    IHD = "IHD"
    MHD = "MHD"
    NONE = "none"
    LOOK_ALIKE = "look-alike"

    @property
    def is_explicit(self) -> bool:
        """Whether the prompt holds explicit risky content."""
        return self in (Group.EHD, Group.MHD)

    @property
    def is_malicious(self) -> bool:
        """Whether the prompt's intent is malicious."""
        return self in (Group.IHD, Group.MHD)


HARMFUL: Final = (Group.EHD, Group.IHD, Group.MHD)
BY_BITS: Final = (*HARMFUL, Group.NONE)
"""The groups that two bits of a prompt make, which a classifier or a judge tells."""
RELEASED: Final[Mapping[str, Group | None]] = {
    **{group.value: group for group in BY_BITS},
    "No risk": Group.NONE,
    "OTHER": None,
}
"""The labels of the paper's released file, and our own names; OTHER is none of the four groups."""


def group_of(*, explicit: bool, malicious: bool) -> Group:
    """The group of a prompt with these two bits."""
    if explicit:
        return Group.MHD if malicious else Group.EHD
    return Group.IHD if malicious else Group.NONE


@dataclass(frozen=True, slots=True)
class GroupedPrompt:
    """A prompt and its group.

    `sure` is the probability in [0, 1] that a classifier gave the group, `analysis` what a judge said before it
    decided; each is None where the other labelled. `blended_from` are the ids of the prompts that it was made of.
    """

    id: str
    messages: Messages
    group: Group
    sure: float | None = None
    analysis: str | None = None
    blended_from: tuple[str, ...] = ()

    @property
    def prompt(self) -> Prompt:
        return Prompt(self.id, self.messages)


@dataclass(frozen=True, slots=True)
class Grouping:
    """Prompts with their groups, and why others got none, by id; no group is ever guessed."""

    rows: Sequence[GroupedPrompt]
    failed: Mapping[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """How many prompts are in each group."""
        return group_counts(self.rows)


class Labeller(Protocol):
    """Puts prompts into groups."""

    def identity(self) -> str:
        """What a labelling that is gone on with must find again."""
        ...

    def label(self, prompts: Sequence[Prompt], folder: Path, *, progress: Progress) -> Grouping:
        """The groups of prompts, rows in the prompts' order. What is done is kept in `folder`, to be gone on with."""
        ...


def group_counts(rows: Iterable[GroupedPrompt]) -> dict[str, int]:
    """How many rows are in each group of BY_BITS, 0 included, and in another where there are any."""
    found = Counter(row.group for row in rows)
    return {group.value: found[group] for group in Group if group in BY_BITS or found[group]}


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A prompt's text and the group that it was given by people, or by those who released it."""

    text: str
    group: Group

    @property
    def key(self) -> str:
        """Equal for texts that differ in letter case and spacing alone."""
        return content_key(Prompt.user("", self.text).messages)


@dataclass(frozen=True, slots=True)
class GroupLabels:
    """Rows that can be learned from, and how many others there were, by what they are."""

    rows: list[LabelledText]
    left_out: Mapping[str, int]


def read_group_labels(paths: Iterable[Path]) -> GroupLabels:
    """Rows of `prompt` and `group` from files of JSON lines; equal prompts may differ in group, and all stay.

    Raises:
        UnreadablePrompts: a file cannot be read.
        BadRow: a row has no prompt or a group that is not known; the message names its place.
        ValueError: no row is left.
    """
    rows: list[LabelledText] = []
    other = 0
    for path in paths:
        for raw in raw_rows(str(path), split=ONLY_SPLIT, subset=None, column="prompt")[1]:
            if raw.broken:
                raise BadRow(f"{raw.place} {raw.broken}")
            text, group = raw.fields.get("prompt"), raw.fields.get("group")
            if not isinstance(text, str) or not text.strip() or not is_unicode(text):
                raise BadRow(f"{raw.place} has no text as its prompt")
            if not isinstance(group, str) or group not in RELEASED:
                raise BadRow(f"{raw.place} has the group {str(group)[:40]!r}; known are {', '.join(RELEASED)}")
            known = RELEASED[group]
            if known is None:
                other += 1
            else:
                rows.append(LabelledText(text, known))
    if not rows:
        raise ValueError(f"no row has a group to learn; {other} are OTHER")
    return GroupLabels(rows, {"OTHER": other})
