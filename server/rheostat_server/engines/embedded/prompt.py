"""Messages become the model's prompt, by its own chat template."""

from collections.abc import Sequence
from typing import Any

import jinja2

from rheostat_server.engines.embedded.request import ChatMessage
from rheostat_server.errors import BadRequest, ContextOverflow, InvalidField


def render_prompt(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[int]:
    """The prompt's token ids, ending where the answer begins.

    Raises:
        BadRequest: the model has no chat template, or its template refuses the messages.
    """
    if tokenizer.chat_template is None:
        raise BadRequest("The model has no chat template, so it cannot be asked by messages.", param="messages")
    try:
        text = tokenizer.apply_chat_template(
            [message.model_dump(exclude_none=True) for message in messages], tokenize=False, add_generation_prompt=True
        )
    except jinja2.TemplateError as exc:
        raise BadRequest(f"The model's chat template refuses the messages: {exc}", param="messages") from exc
    ids: list[int] = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    if not ids:
        raise BadRequest("The model's chat template makes an empty prompt of the messages.", param="messages")
    return ids


def answer_limit(prompt: Sequence[int], asked: int | None, *, at_least: int, context: int) -> int:
    """The most tokens that the answer may have: as many as asked for, or what the prompt leaves of the context.

    Raises:
        ContextOverflow: prompt and answer do not fit.
        InvalidField: `min_tokens`, `at_least`, is more.
    """
    left = context - len(prompt)
    needed = asked or 1
    if left < needed:
        raise ContextOverflow(
            f"The prompt has {len(prompt)} tokens and the answer may have {needed}, {len(prompt) + needed} in all; the "
            f"model's context is {context} tokens.",
            param="messages" if left < 1 else "max_tokens",
        )
    limit = asked or left
    if at_least > limit:
        raise InvalidField(
            f"min_tokens is {at_least}; it should be at most {limit}, the most tokens that the answer may have.",
            param="min_tokens",
        )
    return limit
