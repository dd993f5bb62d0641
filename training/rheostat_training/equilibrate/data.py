"""Grouped prompts for a run: nested draws from the demo world or from files."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from rheostat_training.config import DEMO
from rheostat_training.conversation import NotAPrompt, messages_of
from rheostat_training.equilibrate.measure import BENIGN, LOOK_ALIKE, NEW_LOOK_ALIKE
from rheostat_training.prompt_files import ONLY_SPLIT, UnreadablePrompts, raw_rows
from rheostat_training.prompts import content_key
from rheostat_training.rows import Prompt, by_id

KINDS: Final = ("EHD", "IHD", "MHD", BENIGN, LOOK_ALIKE)
"""What may be trained on."""
GROUPS: Final[Mapping[str, str]] = {**{kind: kind for kind in (*KINDS, NEW_LOOK_ALIKE)}, "No risk": BENIGN}


@dataclass(frozen=True, slots=True)
class Kinds:
    """Prompts by id, and the kind of each: a group of harmful prompts, `BENIGN` or `LOOK_ALIKE`."""

    prompts: Mapping[str, Prompt]
    of: Mapping[str, str]

    @property
    def by_kind(self) -> dict[str, list[Prompt]]:
        found: defaultdict[str, list[Prompt]] = defaultdict(list)
        for id, prompt in self.prompts.items():
            found[self.of[id]].append(prompt)
        return dict(found)

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(self.of.values()))


def draw(texts: Mapping[str, Sequence[Prompt]], mix: Mapping[str, int], seed: int) -> tuple[Kinds, dict[str, int]]:
    """So many prompts of each kind, and how many each kind was short of.

    A kind's smaller draw is the beginning of its larger one, whatever is drawn of the others.
    """
    prompts: dict[str, Prompt] = {}
    of: dict[str, str] = {}
    short: dict[str, int] = {}
    for kind, count in mix.items():
        known = sorted(texts.get(kind, ()), key=lambda prompt: prompt.id)
        Random(f"draw {seed} {kind}").shuffle(known)
        for prompt in known[:count]:
            prompts[prompt.id], of[prompt.id] = prompt, kind
        if len(known) < count:
            short[kind] = count - len(known)
    return Kinds(prompts, of), short


def training_prompts(
    source: str, mix: Mapping[str, int], seed: int, *, unlike: Kinds | None = None
) -> tuple[Kinds, dict[str, int], int]:
    """The prompts to train on, how many each kind was short of, and how many were left out for being in `unlike`.

    All of a file where the mix is empty. Those held out are told by what they say, in whatever letter case and spacing.

    Raises:
        UnreadablePrompts: the file cannot be read, or a row of it has no prompt or no group that is known.
    """
    known = demo_prompts(held_out=False) if source == DEMO else grouped_prompts(source)
    apart = {content_key(prompt.messages) for prompt in unlike.prompts.values()} if unlike else set()
    fresh = {kind: [each for each in some if content_key(each.messages) not in apart] for kind, some in known.items()}
    shared = sum(map(len, known.values())) - sum(map(len, fresh.values()))
    drawn, short = draw(fresh, mix or {kind: len(some) for kind, some in fresh.items()}, seed)
    return drawn, short, shared


def held_out_prompts(source: str, each: int) -> Kinds:
    """The prompts that measure, as many of each kind as there are of those asked for; the same for every seed."""
    known = demo_prompts(held_out=True) if source == DEMO else grouped_prompts(source)
    return draw(known, dict.fromkeys(known, each), 0)[0]


def grouped_prompts(path: str) -> dict[str, list[Prompt]]:
    """The prompts of a file by kind: rows of `group` and of `messages` or `prompt`, and of an `id` where they have one.

    Raises:
        UnreadablePrompts: the file cannot be read, or a row has no prompt or no group that is known.
    """
    found: dict[str, list[Prompt]] = {kind: [] for kind in KINDS}
    for row in raw_rows(path, split=ONLY_SPLIT, subset=None, column=None)[1]:
        if row.broken:
            raise UnreadablePrompts(f"{row.place} {row.broken}")
        group = GROUPS.get(str(row.fields.get("group")))
        if group is None:
            raise UnreadablePrompts(
                f"{row.place} has the group {str(row.fields.get('group'))[:40]!r}; it must be one of {', '.join(KINDS)}"
            )
        column = "messages" if "messages" in row.fields else "prompt"
        try:
            messages = messages_of(row.fields.get(column), column)
        except NotAPrompt as exc:
            raise UnreadablePrompts(f"{row.place}: {exc}") from exc
        found[group].append(Prompt(str(row.fields.get("id") or f"row-{row.line:06d}"), messages))
    by_id(prompt for some in found.values() for prompt in some)
    return {kind: some for kind, some in found.items() if some}


def demo_prompts(*, held_out: bool) -> dict[str, list[Prompt]]:
    """The prompts of the demo world by kind: those that training may use, or those that it may not."""
    from rheostat_training.demo.risks import RiskGroup
    from rheostat_training.demo.scenario import (
        held_out_look_alikes,
        held_out_scenarios,
        new_look_alikes,
        training_look_alikes,
        training_scenarios,
    )

    found = {str(group): (held_out_scenarios if held_out else training_scenarios)(group) for group in RiskGroup}
    found[LOOK_ALIKE] = held_out_look_alikes() if held_out else training_look_alikes()
    if held_out:
        found[NEW_LOOK_ALIKE] = new_look_alikes()
    return {
        kind: [Prompt.user(f"{kind}-{number:05d}", each.prompt) for number, each in enumerate(some)]
        for kind, some in found.items()
    }
