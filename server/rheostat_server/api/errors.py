"""Renders every error in OpenAI's shape, in one place."""

from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server.api.json_response import json_response
from rheostat_server.api.request_id import HEADER
from rheostat_server.api.request_record import record_of
from rheostat_server.errors import RheostatError
from rheostat_server.log import trace_of

log = structlog.get_logger(__name__)

CLIENT_CLOSED_REQUEST: Final = 499


def error_body(error: RheostatError) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


async def render_error(request: Request, exc: Exception) -> Response:
    """The handler of RheostatError."""
    if not isinstance(exc, RheostatError):
        raise TypeError(f"render_error handles RheostatError, not {type(exc).__name__}") from exc
    record_of(request).failed(exc)
    if exc.status >= 500:
        log.warning("request failed", status=exc.status, code=exc.code, reason=exc.logged)
    return json_response(error_body(exc), status=exc.status, headers=exc.headers)


async def render_gone(request: Request, exc: Exception) -> Response:
    """The handler of ClientDisconnect: nobody reads the response, and nothing has failed."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def render_bug(request: Request, exc: Exception) -> Response:
    """The handler of what should not happen: says nothing of its cause to the caller, and to the log where it was.

    It answers outside of all middleware, so the request's id is put on here.
    """
    record = record_of(request)
    log.error(
        "internal error", path=request.url.path, trace=trace_of(exc), request_id=record.request_id, **record.span.ids
    )
    error = RheostatError("internal error; the server's log has the details")
    return json_response(error_body(error), status=500, headers={HEADER: record.request_id})
