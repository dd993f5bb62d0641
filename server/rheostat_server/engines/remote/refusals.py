"""The upstream's errors and the network's, translated once into ours."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from rheostat_server.engines.remote.upstream import Upstream
from rheostat_server.errors import ContextOverflow, EngineFailed, EngineRejected, EngineUnavailable, RheostatError

_GONE_STATUSES: Final = frozenset({502, 503, 504})
_NO_ROUTE: Final = frozenset({404, 405})
_CONTEXT_CODE: Final = "context_length_exceeded"
_CONTEXT_PARAMS: Final = frozenset({"input_text", "input_tokens"})
"""The fields that vLLM blames where a prompt does not fit the model's context."""


class ModelGone(EngineUnavailable):
    """The upstream has not the model that it was asked for; it was there when this server was started."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as the upstream told it, in OpenAI's shape or in another."""

    message: str | None = None
    type: str | None = None
    code: str | None = None
    param: str | None = None

    @classmethod
    def read(cls, raw: bytes) -> "Refusal":
        """What can be read of an error's body; nothing at worst."""
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return cls()
        return cls.of(body.get("error", body)) if isinstance(body, dict) else cls()

    @classmethod
    def of(cls, error: object) -> "Refusal":
        if isinstance(error, str):
            return cls(message=error)
        if not isinstance(error, dict):
            return cls()
        return cls(
            message=_text(error.get("message")) or _text(error.get("detail")),
            type=_text(error.get("type")),
            code=_text(error.get("code")),
            param=_text(error.get("param")),
        )

    @property
    def blames_model(self) -> bool:
        return self.code == "model_not_found" or self.param == "model"

    @property
    def is_overflow(self) -> bool:
        return self.code == _CONTEXT_CODE or self.param in _CONTEXT_PARAMS


def refusal_error(response: httpx.Response, raw: bytes, upstream: Upstream) -> RheostatError:
    """Our error for a response whose status is not 200."""
    refusal = Refusal.read(raw)
    status = response.status_code
    told = upstream.without_key(refusal.message or f"it gave no reason that can be read, status {status}")
    headers = _retry_after(response)
    logged = f"the upstream server answered with status {status}"
    if status in _GONE_STATUSES:
        return EngineUnavailable(f"the upstream server is unavailable: {told}", headers=headers, logged=logged)
    if status == 401:
        return EngineFailed(
            "the upstream server refuses this server's key; its operator sets RHEOSTAT_UPSTREAM_API_KEY"
        )
    if not 400 <= status < 500 or (status in _NO_ROUTE and refusal.type is None):
        return EngineFailed(f"{logged}: {told}", headers=headers, logged=logged)
    if status == 404 and refusal.blames_model:
        gone = "the upstream server no longer has what it had when this server was started"
        return ModelGone(f"{gone}: {told}", logged=gone)
    if refusal.is_overflow:
        return ContextOverflow(told, param="messages")
    return EngineRejected(
        told,
        status=status,
        type=refusal.type or "invalid_request_error",
        code=refusal.code,
        param=refusal.param,
        headers=headers,
    )


def error_event_error(raw: bytes, upstream: Upstream) -> RheostatError:
    """Our error for an event by which the upstream tells of one within a stream."""
    refusal = Refusal.read(raw)
    told = upstream.without_key(refusal.message or "it gave no reason that can be read")
    failed = "the upstream server failed within the stream"
    return EngineFailed(f"{failed}: {told}", logged=failed)


@contextmanager
def network_errors_as_ours(*, midway: bool = False) -> Generator[None, None, None]:
    """Turns httpx's errors into ours; `midway` when a part of the answer has come."""
    try:
        yield
    except httpx.ConnectTimeout as exc:
        raise EngineUnavailable("the upstream server does not accept connections in time") from exc
    except httpx.ConnectError as exc:
        raise EngineUnavailable("the upstream server cannot be reached") from exc
    except httpx.TimeoutException as exc:
        raise EngineUnavailable("the upstream server has been silent for too long") from exc
    except httpx.TransportError as exc:
        if midway:
            raise EngineFailed("the upstream server closed the connection in the middle of its answer") from exc
        raise EngineUnavailable("the upstream server closed the connection without an answer") from exc
    except httpx.DecodingError as exc:
        raise EngineFailed("the upstream server's answer does not hold to its content-encoding") from exc


def _retry_after(response: httpx.Response) -> dict[str, str] | None:
    value = response.headers.get("retry-after")
    return {"Retry-After": value} if value else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
