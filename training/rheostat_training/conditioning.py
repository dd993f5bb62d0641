"""What the model reads and learns: chat template, control text, answer ids, and the negatives of a prompt."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2.exceptions import TemplateError

from rheostat_server.contract.control_text import ControlText
from rheostat_server.contract.dials import Dials
from rheostat_training.rows import Example, Message

CONTROL_TEXT: Final = ControlText()
_ANSWER: Final = "ANSWER"


class TemplateRefuses(ValueError):
    """A chat template does not take a conversation: it has no system messages, or wants user and assistant by turns."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt with its generation prompt, and of an answer with its end token."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True, slots=True)
class Negative:
    """An answer under dials that it is not the answer for."""

    prompt_id: str
    dials: Dials
    answer: str


def prompt_text(
    tokenizer: Any, messages: Sequence[Message], dials: Dials | None, *, control_text: ControlText = CONTROL_TEXT
) -> str:
    """The prompt as the chat template writes it, control text appended by the server's own function.

    Raises:
        TemplateRefuses: the template does not take these messages.
    """
    controlled = control_text.apply(messages, dials) if dials else [dict(message) for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(controlled, add_generation_prompt=True, tokenize=False)
    except TemplateError as exc:
        raise TemplateRefuses(f"the chat template refuses the conversation: {exc}") from exc
    return text


def closing_ids(tokenizer: Any) -> tuple[int, ...]:
    """What the chat template writes after an answer; nothing where it takes no conversation that ends in one."""
    answered = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text: str = tokenizer.apply_chat_template(answered, tokenize=False)
    except (TemplateError, ValueError):
        return ()
    [ids] = token_ids(tokenizer, [text.rpartition(_ANSWER)[2]])
    return ids


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Ids of texts as they stand: the chat template has already written every special token."""
    if not texts:
        return []
    return [tuple(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def following_ids(tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[int, ...]]:
    """Ids of each answer as it goes on after its prompt, as a model says it.

    A tokenizer may write a text that begins in another way than one that goes on: SentencePiece's puts a space before
    the first word. Where it would also write the prompt's end in another way, the answer's ids are those of it alone.
    """
    distinct = list(dict.fromkeys(prompts))
    before = dict(zip(distinct, token_ids(tokenizer, distinct), strict=True))
    both = token_ids(tokenizer, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    rest = [_rest(whole, before[prompt]) for whole, prompt in zip(both, prompts, strict=True)]
    alone = iter(token_ids(tokenizer, [answer for answer, ids in zip(answers, rest, strict=True) if ids is None]))
    return [next(alone) if ids is None else ids for ids in rest]


def _rest(whole: tuple[int, ...], start: tuple[int, ...]) -> tuple[int, ...] | None:
    return whole[len(start) :] if whole[: len(start)] == start else None


def cross_negatives(examples: Sequence[Example], *, distance: float = 0.0) -> list[Negative]:
    """All pairs of one prompt's dials and answers that are not true pairs.

    The cross product is a fact for dialogue in CausalDialogue (arXiv 2212.10515) and our reconstruction for control.
    With `distance`, only answers all of whose dials differ by at least that much in one dial: neighbouring levels are
    not each other's opposite.
    """
    dials_of: defaultdict[str, set[Dials]] = defaultdict(set)
    for example in examples:
        dials_of[example.answer].add(example.dials)
    negatives: dict[tuple[Dials, str], Negative] = {}
    for wanted in examples:
        for answer, others in dials_of.items():
            nearest = min(dial_distance(wanted.dials, other) for other in others)
            if wanted.dials not in others and nearest >= distance:
                negatives[wanted.dials, answer] = Negative(wanted.prompt_id, wanted.dials, answer)
    return list(negatives.values())


def dial_distance(one: Dials, other: Dials) -> float:
    """The larger of the two differences."""
    return max(abs(one.safety - other.safety), abs(one.helpfulness - other.helpfulness))


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first ids two answers share."""
    for position, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return position
    return min(len(one), len(other))


def masked_prefix(negative: Sequence[int], positives: Iterable[Sequence[int]]) -> int:
    """How many first ids of a negative are also right under its dials, and so must not be pushed down."""
    return max((shared_prefix(negative, positive) for positive in positives), default=0)
