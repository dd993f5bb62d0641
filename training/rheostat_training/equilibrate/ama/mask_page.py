"""Masks to be looked at: a page that colours the tokens that a loss learns from, and pales the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rheostat_training.equilibrate.ama.masks import KEPT_WHOLE, Mask, Masking, masks, share
from rheostat_training.report.html import environment
from rheostat_training.rows import Pair
from rheostat_training.training_set import Positive

TEMPLATES: Final = Path(__file__).parent / "templates"
REWARDS: Final = "rewards.jsonl"


@dataclass(frozen=True, slots=True)
class RewardedAnswer:
    """An answer's tokens as text, its end token the last, and their rewards."""

    tokens: tuple[str, ...]
    rewards: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RewardedPair:
    """The two answers to one prompt, with the rewards that their masks are made of."""

    prompt_id: str
    chosen: RewardedAnswer
    rejected: RewardedAnswer


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """A token as the page shows it."""

    text: str
    reward: float
    kept: bool


@dataclass(frozen=True, slots=True)
class MaskedPair:
    """A pair as the page shows it; `shares` are those kept of the chosen and of the rejected answer."""

    prompt_id: str
    chosen: tuple[MaskedToken, ...]
    rejected: tuple[MaskedToken, ...]
    shares: tuple[float, float]


@dataclass(frozen=True, slots=True)
class MaskedPairs:
    """Some pairs, and the shares of tokens kept over all that there are.

    `whole_share` is that of the answers that are kept whole because nothing would be left of them.
    """

    pairs: tuple[MaskedPair, ...]
    of: int
    chosen_share: float
    rejected_share: float
    whole_share: float


def rewarded_pairs(tokenizer: Any, pairs: Sequence[Pair], positives: Sequence[Positive]) -> Iterator[RewardedPair]:
    """The rows of `REWARDS`, of pairs and of what `with_rewards` made of them."""
    for pair, item in zip(pairs, positives, strict=True):
        chosen, rejected = (
            RewardedAnswer(tuple(tokenizer.decode([id]) for id in row.encoded.answer_ids), row.rewards or ())
            for row in (item.row, item.negatives[0])
        )
        yield RewardedPair(pair.prompt_id, chosen, rejected)


def masked_pairs(rows: Sequence[RewardedPair], masking: Masking, *, shown: int) -> MaskedPairs:
    """What a masking keeps of every pair, and the first `shown` of them in full.

    A batch baseline is taken over all the rows here, where a fit takes it over a step's.
    """
    answers = [
        (answer.rewards, chosen) for row in rows for answer, chosen in ((row.chosen, True), (row.rejected, False))
    ]
    found = masks(answers, masking, seeds=[f"page {place}" for place in range(len(answers))])
    chosen, rejected = found.masks[::2], found.masks[1::2]
    pairs = tuple(
        MaskedPair(
            row.prompt_id, _tokens(row.chosen, one), _tokens(row.rejected, other), (share([one]), share([other]))
        )
        for row, one, other in zip(rows[:shown], chosen, rejected, strict=False)
    )
    return MaskedPairs(pairs, len(rows), share(chosen), share(rejected), found.shares()[KEPT_WHOLE])


def render_masks(found: MaskedPairs, masking: Masking) -> str:
    """The page as HTML: one file, no network, no script. Answers are text there, never markup."""
    page = environment(TEMPLATES).get_template("masks.html.jinja")
    return page.render(found=found, masking=masking)


def _tokens(answer: RewardedAnswer, mask: Mask) -> tuple[MaskedToken, ...]:
    return tuple(
        MaskedToken(text, reward, keep) for text, reward, keep in zip(answer.tokens, answer.rewards, mask, strict=True)
    )
