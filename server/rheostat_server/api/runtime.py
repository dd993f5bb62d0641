"""How a route reaches the running server, and who asks it."""

import structlog
from starlette.requests import Request

from rheostat_server.api.request_record import record_of
from rheostat_server.callers import Caller
from rheostat_server.callers.telemetry import UNAUTHORIZED
from rheostat_server.errors import EngineUnavailable, Unauthorized
from rheostat_server.runtime import Runtime, runtime_in


async def caller_of(request: Request) -> Caller:
    """Who asks: everyone alike where there is no policy file.

    Raises:
        Unauthorized: no key, or one of nobody.
    """
    runtime, record = runtime_of(request), record_of(request)
    if runtime.shelf is None:
        record.caller = Caller(policy=runtime.policy)
        return record.caller
    try:
        record.caller = await runtime.shelf.caller_of(request.headers.get("authorization"))
    except Unauthorized:
        UNAUTHORIZED.inc()
        raise
    structlog.contextvars.bind_contextvars(caller=record.caller.name)
    return record.caller


async def caller_with_room(request: Request) -> Caller:
    """The same, before the body is read: a caller over its rates costs the server no work.

    Raises:
        Unauthorized: as `caller_of`.
        TooManyRequests, LimitsUnavailable: by the caller's rates.
    """
    caller = await caller_of(request)
    await runtime_of(request).admission.check(caller)
    return caller


def runtime_of(request: Request) -> Runtime:
    """The app's runtime.

    Raises:
        EngineUnavailable: the server has not finished starting.
    """
    runtime = runtime_in(request.app)
    if runtime is None:
        raise EngineUnavailable("the server is starting; ask GET /ready")
    return runtime
