"""Whole answers: parsed, and checked to be answers."""

from typing import Any, Final

import httpx
import orjson

from rheostat_server.engines import Completion
from rheostat_server.engines.remote.refusals import Refusal
from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.errors import EngineFailed, EngineUnavailable

ABORTED: Final = "abort"
"""The finish reason by which vLLM and SGLang say that they gave an answer up, as they do when they end."""
GAVE_UP: Final = "the upstream server gave the request up before its answer was whole"


def check_content_type(response: httpx.Response, expected: str) -> None:
    """Raises EngineFailed unless the response has that content type."""
    content_type = response.headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() != expected:
        raise EngineFailed(
            f"the upstream server answered with content-type {content_type!r}; it must be {expected!r}",
            logged=f"the upstream server answered with another content-type than {expected!r}",
        )


def read_json(response: httpx.Response) -> Any:
    """The response's JSON.

    Raises:
        EngineFailed: it is none.
    """
    check_content_type(response, "application/json")
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError as exc:
        raise EngineFailed("the upstream server answered with invalid JSON") from exc


def read_completion(response: httpx.Response, upstream: Upstream) -> Completion:
    """OpenAI's `chat.completion` object.

    Raises:
        EngineFailed: the response is something else, an error under status 200 included.
        EngineUnavailable: the upstream gave it up.
    """
    body = read_json(response)
    if not isinstance(body, dict):
        raise EngineFailed("the upstream server answered with JSON that is no object")
    if body.get("error"):
        told = Refusal.of(body["error"]).message or "it gave no reason that can be read"
        failed = "the upstream server failed"
        raise EngineFailed(f"{failed}: {upstream.without_key(told)}", logged=f"{failed}, under status 200")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(_is_choice(choice) for choice in choices):
        raise EngineFailed("the upstream server answered without choices that hold a message")
    if any(choice.get("finish_reason") == ABORTED for choice in choices):
        raise EngineUnavailable(GAVE_UP)
    return body


def _is_choice(choice: object) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("message"), dict)
