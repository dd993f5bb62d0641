"""Which fields of a request go with a mode: what a mode would ignore, or what could undo it, is refused."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rheostat_server.chat_request import ChatRequest
from rheostat_server.errors import InvalidField
from rheostat_server.modes.reranking import DRAWN_BY

CUTS_CONTROL_OUT: Final = (
    "truncate_prompt_tokens", "truncation_side", "chat_template",
    "chat_template_kwargs.chat_template", "chat_template_kwargs.max_length", "chat_template_kwargs.truncation",
    "chat_template_kwargs.conversation", "chat_template_kwargs.messages", "chat_template_kwargs.padding",
    "chat_template_kwargs.tokenize", "chat_template_kwargs.tokenizer_kwargs", "chat_template_kwargs.return_dict",
    "chat_template_kwargs.return_tensors", "kv_transfer_params.prompt_token_ids",
)  # fmt: skip
"""Fields of engines that can take control text or instruction out of the prompt again, or stand in its place or after
it.
"""
SPECIAL: Final = "_token"
"""The end of the names by which a template's special tokens, such as `eos_token`, can be replaced by any text."""


def check_fields(chat: ChatRequest, mode: str) -> None:
    """Refuses what a mode could only ignore, and what could undo it.

    Raises:
        InvalidField: a field does not go with the mode.
    """
    drawn_by = DRAWN_BY.get(mode, mode)
    if chat.control.adapter is not None and drawn_by not in ("adapter", "blend"):
        raise InvalidField(
            f"adapter is {chat.control.adapter!r} and the mode is {mode!r}; an adapter goes with the modes auto, "
            "adapter and adapter+rerank, and a blend with auto, blend and blend+rerank",
            param="control.adapter",
        )
    if drawn_by != "off" and (name := next(_undoing(chat.body), None)):
        raise InvalidField(f"{name} is given and the mode is {mode!r}, which it could undo; leave it out", param=name)
    if mode in DRAWN_BY:
        _check_reranked(chat, mode)
    else:
        _refuse_rerank_fields(chat, mode)


def _undoing(body: Mapping[str, Any]) -> Iterator[str]:
    """The fields given that could take the dials out of the prompt, or write something after them."""
    yield from (name for name in CUTS_CONTROL_OUT if _at(body, name) is not None)
    kwargs = body.get("chat_template_kwargs")
    names = kwargs if isinstance(kwargs, dict) else ()
    yield from (f"chat_template_kwargs.{name}" for name in names if name.endswith(SPECIAL))


def _check_reranked(chat: ChatRequest, mode: str) -> None:
    n, options = chat.body.get("n"), chat.body.get("stream_options")
    if n not in (None, 1):
        raise InvalidField(
            f"n is {n} and the mode is {mode!r}, which answers with the best of several; leave n out, and say how many "
            "as control.candidates",
            param="n",
        )
    if chat.control.choose_after is not None and not chat.wants_stream:
        raise InvalidField(
            f"choose_after is {chat.control.choose_after} and the answer is whole; it should come with stream true",
            param="control.choose_after",
        )
    if options is not None and not chat.wants_stream:
        raise InvalidField("stream_options is given and stream is not true; leave it out", param="stream_options")


def _refuse_rerank_fields(chat: ChatRequest, mode: str) -> None:
    asked = chat.control
    for name, value in (
        ("candidates", asked.candidates),
        ("choose_after", asked.choose_after),
        ("early_stop", asked.early_stop),
    ):
        if value is not None:
            raise InvalidField(
                f"{name} is {value} and the mode is {mode!r}, which does not choose among candidates; leave it out, or "
                f"take one of the modes {', '.join(DRAWN_BY)}",
                param=f"control.{name}",
            )


def _at(body: Mapping[str, Any], path: str) -> object:
    """The value of `field` or of `field.inner`."""
    name, _, inner = path.partition(".")
    value = body.get(name)
    if not inner:
        return value
    return value.get(inner) if isinstance(value, dict) else None
