"""A guard asked over OpenAI's chat API: the request for one criterion, and the level that its answer tells."""

import re
from collections.abc import Sequence
from typing import Any, Final

from rheostat_server.scorers.guard_formats import Criterion, GuardFormat, Turn
from rheostat_server.scorers.logprobs import LISTED, NotAnAnswer, written_by

_BESIDE_LEAD: Final = 4
"""Tokens beside the lead: the verdict's first, and some blank ones. Granite's empty thought fits too."""
_MARKS: Final = str.maketrans("\u0120\u2581\u010a", "  \n")
"""How byte-level BPE and SentencePiece write space and line; some servers tell tokens so."""
_CONTROL: Final = re.compile(r"<(?=\|[^<>|]*\|>|/?\w+>)")


def guard_body(turns: Sequence[Turn], criterion: Criterion, *, format: GuardFormat, model: str) -> dict[str, Any]:
    """The request that lets a guard write its lead and the beginning of its verdict.

    A token has a byte or more, so the lead has no more tokens than bytes.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{**turn, "content": without_control(turn["content"])} for turn in turns],
        "temperature": 0,
        "max_tokens": len(format.lead.encode()) + _BESIDE_LEAD,
        "logprobs": True,
        "top_logprobs": LISTED,
    }
    if criterion:
        body["chat_template_kwargs"] = {**criterion}
    if not format.generation_prompt:
        body["add_generation_prompt"] = False
    return body


def guard_level(completion: object, *, format: GuardFormat, least_mass: float) -> float | None:
    """The level by the likeliest tokens where the verdict begins; None where the guard did not keep to its form.

    Raises:
        NotAnAnswer: it is no completion with log-probabilities.
    """
    written = written_by(completion)
    place = format.verdict_index([_unmarked(one.token) for one in written])
    if place is None:
        return None
    if not written[place].top_logprobs:
        raise NotAnAnswer(f"its answer lists no likeliest tokens; it must tell log-probabilities of {LISTED}")
    listed = [(_unmarked(token), logprob) for token, logprob in written[place].listed]
    return format.level_of_tokens(listed, least_mass=least_mass)


def without_control(text: str) -> str:
    """What a person or a model wrote must not end its own turn: what looks like a special token gets a space.

    Which ones the guard has, its server alone knows: `<|word|>`, `<word>` and `</word>` are taken for some.
    """
    return _CONTROL.sub("< ", text)


def _unmarked(token: str) -> str:
    return token.translate(_MARKS)
