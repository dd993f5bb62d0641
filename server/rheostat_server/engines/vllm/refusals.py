"""vLLM's errors, translated once into ours."""

from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import orjson
from jinja2 import TemplateError
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import VLLMError
from vllm.v1.engine.exceptions import EngineDeadError

from rheostat_server.errors import ContextOverflow, EngineFailed, EngineRejected, EngineUnavailable, RheostatError

# What vLLM's own handlers turn into an answer; anything else is a bug and stays one.
_FOREIGN: Final = (VLLMError, ValueError, TypeError, OverflowError, NotImplementedError, TemplateError)
_TOO_LONG: Final = frozenset({"input_text", "input_tokens"})


@contextmanager
def foreign_errors_as_ours() -> Generator[None, None, None]:
    """Turns what vLLM raises for a request into our errors; ours pass."""
    try:
        yield
    except RheostatError:
        raise
    except EngineDeadError as exc:
        raise EngineUnavailable("vLLM's engine process is dead; its log says why") from exc
    except _FOREIGN as exc:
        raise as_ours(create_error_response(exc)) from exc


def as_ours(response: Any) -> RheostatError:
    """vLLM's ErrorResponse as our error: its status, type, message and field."""
    error = response.error
    if error.param in _TOO_LONG:
        return ContextOverflow(error.message, param="messages")
    if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
        return EngineUnavailable(error.message, logged=f"vLLM is unavailable: {error.type}")
    if error.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return EngineFailed(error.message, logged=f"vLLM failed: {error.type}")
    return EngineRejected(error.message, status=error.code, type=error.type, param=error.param)


def read_error_event(event: str) -> RheostatError:
    """Our error for the event by which vLLM tells of one in a stream."""
    return as_ours(ErrorResponse.model_validate(orjson.loads(event.removeprefix("data: "))))
