"""The rows that a fit learns from: positives with their negatives, and which of them each step takes."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rheostat_server.contract.dials import Dials
from rheostat_training.conditioning import (
    Encoded,
    cross_negatives,
    following_ids,
    masked_prefix,
    prompt_text,
    token_ids,
)
from rheostat_training.equilibrate.ama.masks import Mask, Masking, masks
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Example, Pair, Prompt, prompt_of

BATCHES_SORTED_TOGETHER = 16
Asked = tuple[str, Dials | None]
"""A prompt's id and its dials; with None it has no control text."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """Ids of prompt and answer; the answer's first `masked` ids have no part in the loss.

    Of the others those count that are `kept`, all where it is None. `rewards` are those of the answer's ids, of which a
    step makes what is kept; `aim` is what the loss wants of the margin over the row's negative.
    """

    encoded: Encoded
    masked: int = 0
    kept: Mask | None = None
    rewards: tuple[float, ...] | None = None
    aim: float = 0.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """One answer under dials and without control text; its first `masked` ids are left to the dials."""

    dialled: TrainingRow
    plain: TrainingRow


@dataclass(frozen=True, slots=True)
class Positive:
    """An answer under the dials it belongs to, and other answers of the prompt under the same dials.

    `plain_ids` are the prompt's without control text. One without dials has no control text at all.
    """

    row: TrainingRow
    dials: Dials | None
    negatives: tuple[TrainingRow, ...]
    plain_ids: tuple[int, ...]

    def anchor(self, after: int) -> Anchor | None:
        """The answer past its first `after` ids; None where there is nothing past them."""
        answer = self.row.encoded.answer_ids
        if len(answer) <= after:
            return None
        prompts = (self.row.encoded.prompt_ids, self.plain_ids)
        return Anchor(*(TrainingRow(Encoded(prompt, answer), after) for prompt in prompts))


@dataclass(frozen=True, slots=True)
class StepRows:
    """What one step reads. Where the loss compares in pairs, each positive has the negative of the same place."""

    positives: tuple[TrainingRow, ...]
    negatives: tuple[TrainingRow, ...]
    anchors: tuple[Anchor, ...] = ()
    kept: Mapping[str, float] = field(default_factory=dict)
    """What masks keep, as `Masked.shares` tells it; empty where there are no masks."""

    def split(self, parts: int) -> "list[StepRows]":
        """The rows dealt out into parts of like size, pairs kept together; a part may come out empty."""
        return [
            StepRows(self.positives[part::parts], self.negatives[part::parts], self.anchors[part::parts])
            for part in range(parts)
        ]

    def masked(self, masking: Masking, seed: str) -> "StepRows":
        """The same rows, of whose rewards is made what is kept; `seed` is that of random masks.

        A row's random mask follows from its ids and the seed: it is the same each time that the row is drawn, as the
        mask that it is compared with.

        Raises:
            ValueError: a row has no rewards.
        """
        rows = [(row, True) for row in self.positives] + [(row, False) for row in self.negatives]
        seeds = [f"{seed} {row.encoded}" for row, _ in rows]
        found = masks([(_rewards(row), chosen) for row, chosen in rows], masking, seeds=seeds)
        made = tuple(replace(row, kept=mask) for (row, _), mask in zip(rows, found.masks, strict=True))
        first = len(self.positives)
        return replace(self, positives=made[:first], negatives=made[first:], kept=found.shares())

    @property
    def tokens(self) -> int:
        return sum(row.encoded.length for row in (*self.positives, *self.negatives))

    def heads(self, tokens: int) -> "StepRows":
        """The same rows with nothing after the first tokens of their answers, not even their end.

        Where an answer settles its levels early, most of its tokens say nothing of the dials, and the mean over all
        of them drowns those that do.
        """
        positives = tuple(_head(row, tokens) for row in self.positives)
        negatives = tuple(_head(row, tokens) for row in self.negatives if row.masked < tokens)
        return StepRows(positives, negatives, self.anchors)


def _head(row: TrainingRow, tokens: int) -> TrainingRow:
    return replace(
        row,
        encoded=Encoded(row.encoded.prompt_ids, row.encoded.answer_ids[:tokens]),
        kept=row.kept[:tokens] if row.kept is not None else None,
        rewards=row.rewards[:tokens] if row.rewards is not None else None,
    )


def _rewards(row: TrainingRow) -> tuple[float, ...]:
    if row.rewards is None:
        raise ValueError("a row has no rewards of its tokens; masks are made of them")
    return row.rewards


@dataclass(frozen=True, slots=True)
class Dither:
    """How dials are moved off their levels, so that the values between two levels come to mean a mixture of them.

    A share of the (prompt, dials) pairs is moved in both dials by triangular noise that is zero at `width`; a value
    that would leave the range stays at its level, which keeps the mixture's odds right next to the ends.
    """

    share: float = 0.0
    width: float = 0.25
    seed: int = 0

    def moved(self, prompt_id: str, dials: Dials) -> Dials:
        chance = random.Random(f"{self.seed} {prompt_id} {dials}")
        if chance.random() >= self.share:
            return dials
        return Dials(safety=self._moved(dials.safety, chance), helpfulness=self._moved(dials.helpfulness, chance))

    def _moved(self, level: float, chance: random.Random) -> float:
        value = level + self.width * (chance.random() - chance.random())
        return round(value, 2) if 0 <= value <= 1 else level


NO_DITHER: Final = Dither()


def build_training_set(
    base: LoadedModel,
    prompts: Mapping[str, Prompt],
    examples: Sequence[Example],
    *,
    negative_distance: float,
    dither: Dither = NO_DITHER,
) -> list[Positive]:
    """Encodes every example and every negative of its prompt, by the base model's tokenizer and end token.

    An answer's ids are those that go on after its prompt.

    Raises:
        ValueError: an example names a prompt that is not there, or there is no example.
    """
    if not examples:
        raise ValueError("examples are empty; a fit needs at least one answer under dials")
    texts = _prompt_texts(base.tokenizer, prompts, examples, dither)
    asked = _prompt_ids(base.tokenizer, texts)
    answers = _answer_ids(base, texts, examples)
    by_prompt: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_prompt[example.prompt_id].append(example)
    return [
        positive
        for prompt_id, group in by_prompt.items()
        for positive in _positives(group, asked[prompt_id], answers[prompt_id], negative_distance)
    ]


def build_pair_set(base: LoadedModel, prompts: Mapping[str, Prompt], pairs: Sequence[Pair]) -> list[Positive]:
    """Encodes pairs, each a positive with its one negative, in the order of the pairs.

    Raises:
        ValueError: a pair names a prompt that is not there, its answers are the same, or there is no pair.
    """
    if not pairs:
        raise ValueError("pairs are empty; a fit needs at least one chosen and one rejected answer")
    for pair in pairs:
        if pair.chosen == pair.rejected:
            raise ValueError(f"a pair of the prompt {pair.prompt_id!r} has the same answer twice; they must differ")
    asked = dict.fromkeys((pair.prompt_id, dials) for pair in pairs for dials in (None, pair.dials))
    texts = {(id, dials): prompt_text(base.tokenizer, prompt_of(prompts, id).messages, dials) for id, dials in asked}
    prompt_ids = dict(zip(texts, token_ids(base.tokenizer, [*texts.values()]), strict=True))
    answers = list(dict.fromkeys((pair.prompt_id, said) for pair in pairs for said in (pair.chosen, pair.rejected)))
    before = [texts[id, None] for id, _ in answers]
    ids = following_ids(base.tokenizer, before, [said for _, said in answers])
    encoded = {key: (*found, base.end_id) for key, found in zip(answers, ids, strict=True)}
    return [_pair(pair, prompt_ids, encoded) for pair in pairs]


def _pair(
    pair: Pair,
    prompts: Mapping[Asked, tuple[int, ...]],
    answers: Mapping[tuple[str, str], tuple[int, ...]],
) -> Positive:
    asked = prompts[pair.prompt_id, pair.dials]
    chosen, rejected = (Encoded(asked, answers[pair.prompt_id, said]) for said in (pair.chosen, pair.rejected))
    return Positive(
        TrainingRow(chosen, aim=pair.aim), pair.dials, (TrainingRow(rejected),), prompts[pair.prompt_id, None]
    )


def _positives(
    group: Sequence[Example],
    asked: Mapping[Dials | None, tuple[int, ...]],
    answers: Mapping[str, tuple[int, ...]],
    distance: float,
) -> Iterator[Positive]:
    right: defaultdict[Dials, list[tuple[int, ...]]] = defaultdict(list)
    for example in group:
        right[example.dials].append(answers[example.answer])
    wrong: defaultdict[Dials, list[TrainingRow]] = defaultdict(list)
    for negative in cross_negatives(group, distance=distance):
        ids = answers[negative.answer]
        masked = masked_prefix(ids, right[negative.dials])
        if masked < len(ids):
            wrong[negative.dials].append(TrainingRow(Encoded(asked[negative.dials], ids), masked))
    for example in group:
        row = TrainingRow(Encoded(asked[example.dials], answers[example.answer]))
        yield Positive(row, example.dials, tuple(wrong[example.dials]), asked[None])


def _prompt_texts(
    tokenizer: Any, prompts: Mapping[str, Prompt], examples: Sequence[Example], dither: Dither
) -> dict[Asked, str]:
    """Prompts as the chat template writes them, with the dithered dials."""
    keys = dict.fromkeys((example.prompt_id, dials) for example in examples for dials in (None, example.dials))
    return {
        (prompt_id, dials): prompt_text(
            tokenizer, prompt_of(prompts, prompt_id).messages, dither.moved(prompt_id, dials) if dials else None
        )
        for prompt_id, dials in keys
    }


def _prompt_ids(tokenizer: Any, texts: Mapping[Asked, str]) -> dict[str, dict[Dials | None, tuple[int, ...]]]:
    """Prompt ids by prompt and level."""
    result: defaultdict[str, dict[Dials | None, tuple[int, ...]]] = defaultdict(dict)
    for (prompt_id, dials), ids in zip(texts, token_ids(tokenizer, [*texts.values()]), strict=True):
        result[prompt_id][dials] = ids
    return result


def _answer_ids(
    base: LoadedModel, texts: Mapping[Asked, str], examples: Sequence[Example]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Answer ids by prompt and answer. Dials stand before the prompt's end, so that any of them will do."""
    keys = list(dict.fromkeys((example.prompt_id, example.answer) for example in examples))
    prompts, answers = [texts[prompt_id, None] for prompt_id, _ in keys], [answer for _, answer in keys]
    end = base.end_id
    result: defaultdict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for (prompt_id, answer), ids in zip(keys, following_ids(base.tokenizer, prompts, answers), strict=True):
        result[prompt_id][answer] = (*ids, end)
    return result


def learnt(positives: Sequence[Positive], in_pairs: bool) -> list[Positive]:
    """Those that steps are drawn from: in pairs, those that have a negative to be compared with."""
    return [positive for positive in positives if positive.negatives or not in_pairs]


def steps(
    positives: Sequence[Positive],
    *,
    batch_rows: int,
    negatives_per_positive: float,
    max_repeats: int,
    seed: int,
    in_pairs: bool = False,
    anchors: int = 0,
    anchor_after: int = 0,
    first: int = 0,
) -> Iterator[StepRows]:
    """Endless steps from step `first` on; step n is the same whether or not the steps before it were taken.

    Every combination of dial levels comes equally often in a pass, rare ones repeated up to `max_repeats` times; rows
    of like length share a step. What fills no whole step, drawn at random, is left out of the pass. `in_pairs` gives
    each positive one negative, and leaves out positives that have none.

    Raises:
        ValueError: pairs or negatives are asked for, and no positive has a negative.
    """
    cells: defaultdict[Dials | None, list[Positive]] = defaultdict(list)
    for positive in learnt(positives, in_pairs):
        cells[positive.dials].append(positive)
    if (in_pairs or negatives_per_positive) and not any(positive.negatives for positive in positives):
        raise ValueError("no answer has a negative; give more answers a prompt or a smaller negative_distance")
    largest = max(len(cell) for cell in cells.values())
    sizes = {dials: min(largest, len(cell) * max_repeats) for dials, cell in cells.items()}
    per_pass = max(1, sum(sizes.values()) // batch_rows)
    number = first
    while True:
        epoch, skipped = divmod(number, per_pass)
        for batch in _one_pass(cells, sizes, batch_rows, random.Random(f"{seed} pass {epoch}"))[skipped:]:
            chance = random.Random(f"{seed} step {number}")
            yield StepRows(
                tuple(item.row for item in batch),
                _draw_pairs(batch, chance) if in_pairs else _draw_negatives(batch, negatives_per_positive, chance),
                _draw_anchors(batch, anchors, anchor_after, chance),
            )
            number += 1


def _one_pass(
    cells: Mapping[Dials | None, Sequence[Positive]],
    sizes: Mapping[Dials | None, int],
    batch_rows: int,
    chance: random.Random,
) -> list[list[Positive]]:
    rows: list[Positive] = []
    for dials in sorted(cells, key=lambda dials: (dials.safety, dials.helpfulness) if dials else ()):
        whole, rest = divmod(sizes[dials], len(cells[dials]))
        rows += [*cells[dials]] * whole + chance.sample([*cells[dials]], rest)
    chance.shuffle(rows)
    rows = rows[: len(rows) // batch_rows * batch_rows or None]
    batches: list[list[Positive]] = []
    pool = batch_rows * BATCHES_SORTED_TOGETHER
    for start in range(0, len(rows), pool):
        near = sorted(rows[start : start + pool], key=lambda item: item.row.encoded.length)
        batches += [near[at : at + batch_rows] for at in range(0, len(near), batch_rows)]
    chance.shuffle(batches)
    return batches


def _draw_anchors(batch: Sequence[Positive], count: int, after: int, chance: random.Random) -> tuple[Anchor, ...]:
    able = [anchor for item in batch if count and (anchor := item.anchor(after))]
    return tuple(chance.sample(able, min(count, len(able))))


def _draw_negatives(batch: Sequence[Positive], per_positive: float, chance: random.Random) -> tuple[TrainingRow, ...]:
    """`per_positive` negatives a positive on the mean, spread over the positives that have any."""
    able = [item for item in batch if item.negatives]
    wanted = round(len(able) * per_positive)
    chance.shuffle(able)
    whole = [item for item in able for _ in range(wanted // len(able))] if able else []
    chosen = whole + able[: wanted - len(whole)]
    return tuple(chance.choice(item.negatives) for item in chosen)


def _draw_pairs(batch: Sequence[Positive], chance: random.Random) -> tuple[TrainingRow, ...]:
    """A negative for each positive, whole: what the two share at the start weighs the same in both."""
    return tuple(replace(chance.choice(item.negatives), masked=0) for item in batch)
