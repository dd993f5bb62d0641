"""The prompt of a guard in this process, by its own chat template, and the place in it where the verdict stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2.exceptions import TemplateError

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.guard_formats import Criterion, GuardFormat, Turn

_PROBE: Final = Dialogue([{"role": "user", "content": "What is vorn powder?"}], "It is a grey spice.")


class GuardUnusable(ValueError):
    """The guard's tokenizer or template does not fit the format; the message says how."""


@dataclass(frozen=True, slots=True)
class Place:
    """The tokens up to the verdict, and the token that each verdict would begin with there."""

    context: Sequence[int]
    verdicts: Mapping[str, int]


class GuardPrompts:
    """Writes prompts of at most `max_tokens` tokens.

    Raises:
        GuardUnusable: there is no chat template, it does not show question and answer, or two verdicts begin alike.
    """

    def __init__(self, tokenizer: Any, format: GuardFormat, *, max_tokens: int) -> None:
        if tokenizer.chat_template is None:
            raise GuardUnusable("its tokenizer has no chat template, by which a guard is asked")
        self._tokenizer = tokenizer
        self._format = format
        self._max_tokens = max_tokens
        self._control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._in_parts = False
        self._check_template()

    def places(self, dialogue: Dialogue) -> list[Place] | None:
        """One for each criterion; None where there is nothing to judge, it cannot fit, or the template refuses it."""
        turns = self._format.turns(dialogue)
        if turns is None:
            return None
        plain = [{**turn, "content": self._without_control(turn["content"])} for turn in turns]
        try:
            places = [self._fitted(plain, criterion) for criterion in self._format.criteria]
        except TemplateError:
            return None
        found = [place for place in places if place is not None]
        return found if len(found) == len(places) else None

    def text(self, turns: Sequence[Turn], criterion: Criterion) -> str:
        """The prompt up to the verdict; what the template has written of `lead` is not written twice."""
        prompt: str = self._tokenizer.apply_chat_template(
            [self._message(turn) for turn in turns],
            tokenize=False,
            add_generation_prompt=self._format.generation_prompt,
            **criterion,
        )
        lead = self._format.lead
        written = next(length for length in range(len(lead), -1, -1) if prompt.endswith(lead[:length]))
        return prompt + lead[written:]

    def _message(self, turn: Turn) -> dict[str, Any]:
        return {**turn, "content": [{"type": "text", "text": turn["content"]}]} if self._in_parts else {**turn}

    def _fitted(self, turns: Sequence[Turn], criterion: Criterion) -> Place | None:
        """Cut where it is too long: the oldest exchanges first, then the start of the question, never the answer."""
        place = self._place(turns, criterion)
        while (excess := len(place.context) - self._max_tokens) > 0:
            turns = turns[2:] if len(turns) > 2 else self._shorter_question(turns, excess)
            if not turns:
                return None
            place = self._place(turns, criterion)
        return place

    def _shorter_question(self, turns: Sequence[Turn], excess: int) -> list[Turn]:
        """Without the first `excess` tokens of the question, or nothing where none of it would be left."""
        question, answer = turns
        offsets = self._encode([question["content"]], return_offsets_mapping=True)["offset_mapping"][0]
        if len(offsets) <= excess:
            return []
        kept = question["content"][max(1, offsets[excess][0]) :]
        return [{**question, "content": kept}, answer] if kept.strip() else []

    def _place(self, turns: Sequence[Turn], criterion: Criterion) -> Place:
        """Each verdict is written out after the prompt, and its token is the one that holds its first character.

        So it is that of the spelling which the context demands, such as one that begins with the space before it.
        """
        text = self.text(turns, criterion)
        words = [*self._format.verdicts]
        spelled = self._encode([text + word for word in words], return_offsets_mapping=True)
        begins = [
            next(at for at, (_, end) in enumerate(offsets) if end > len(text)) for offsets in spelled["offset_mapping"]
        ]
        contexts = [ids[:begin] for ids, begin in zip(spelled["input_ids"], begins, strict=True)]
        firsts = [ids[begin] for ids, begin in zip(spelled["input_ids"], begins, strict=True)]
        if len(set(firsts)) < len(words) or any(context != contexts[0] for context in contexts):
            raise GuardUnusable(
                f"the verdicts {', '.join(map(repr, words))} do not each begin with a token of their own after "
                f"{text[-20:]!r}, so that their first tokens do not tell them apart"
            )
        return Place(contexts[0], dict(zip(words, firsts, strict=True)))

    def _encode(self, texts: Sequence[str], **options: bool) -> Any:
        return self._tokenizer([*texts], add_special_tokens=False, **options)

    def _without_control(self, text: str) -> str:
        """What a person or a model wrote must not end its own turn: a special token in it is spelled with a space."""
        for token in self._control:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def _check_template(self) -> None:
        """Some templates take contents as text, some as parts, and one may write nothing of what it does not know."""
        for self._in_parts in (False, True):
            if all(self._shows_probe(criterion) for criterion in self._format.criteria):
                break
        else:
            raise GuardUnusable(
                f"its chat template does not write out a question and its answer, so it is no {self._format.name}"
            )
        if self.places(_PROBE) is None:
            raise GuardUnusable(f"the template alone is longer than max_tokens, {self._max_tokens}")

    def _shows_probe(self, criterion: Criterion) -> bool:
        turns = self._format.turns(_PROBE) or []
        try:
            text = self.text(turns, criterion)
        except (TemplateError, TypeError):
            return False
        return all(turn["content"] in text for turn in turns)
