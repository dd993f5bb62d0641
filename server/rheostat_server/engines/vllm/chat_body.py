"""From OpenAI's body to vLLM's request."""

from typing import Any, Final

from pydantic import ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

from rheostat_server.engines import ChatBody
from rheostat_server.errors import BadRequest, UnsupportedField

# OpenAI's fields for its own platform, which change nothing about an answer.
_WITHOUT_EFFECT: Final = frozenset(
    {"metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store"}
)
_KNOWN: Final = frozenset(ChatCompletionRequest.model_fields) | _WITHOUT_EFFECT


def chat_completion_request(body: ChatBody, *, stream: bool) -> Any:
    """vLLM's request of a body.

    Raises:
        UnsupportedField: vLLM would accept a field and ignore it.
        BadRequest: a field has a wrong value.
    """
    if unknown := sorted(body.keys() - _KNOWN):
        raise UnsupportedField(f"vLLM does not know the field {unknown[0]!r} and would ignore it", param=unknown[0])
    try:
        return ChatCompletionRequest.model_validate({**body, "stream": stream})
    except ValidationError as exc:
        raise _as_ours(exc) from exc


def _as_ours(invalid: ValidationError) -> BadRequest:
    """The first error alone: for a union, pydantic lists one for each member."""
    first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"] if _is_of_the_body(part))
    return BadRequest(f"{place or 'the body'}: {first['msg']}", param=_field(first["loc"]))


def _is_of_the_body(part: int | str) -> bool:
    """Not the name of a type or of a validator, which pydantic puts among the names of fields."""
    return isinstance(part, int) or part.replace("_", "").islower()


def _field(location: tuple[int | str, ...]) -> str | None:
    """`messages[0]` of `("messages", 0, "ChatCompletionUserMessageParam", …)`."""
    if not location or not isinstance(location[0], str):
        return None
    name, *inner = location
    index = f"[{inner[0]}]" if inner and isinstance(inner[0], int) else ""
    return f"{name}{index}"
