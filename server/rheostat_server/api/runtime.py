"""How a route reaches the running server, and who asks it."""

from starlette.requests import Request

from rheostat_server.callers import Caller
from rheostat_server.callers.telemetry import UNAUTHORIZED
from rheostat_server.errors import EngineUnavailable, Unauthorized
from rheostat_server.runtime import Runtime


async def caller_of(request: Request) -> Caller:
    """Who asks: everyone alike where there is no policy file.

    Raises:
        Unauthorized: no key, or one of nobody.
    """
    runtime = runtime_of(request)
    if runtime.shelf is None:
        return Caller(policy=runtime.policy)
    try:
        return await runtime.shelf.caller_of(request.headers.get("authorization"))
    except Unauthorized:
        UNAUTHORIZED.inc()
        raise


def runtime_of(request: Request) -> Runtime:
    """The app's runtime.

    Raises:
        EngineUnavailable: the server has not finished starting.
    """
    runtime = getattr(request.app.state, "rheostat", None)
    if not isinstance(runtime, Runtime):
        raise EngineUnavailable("the server is starting; ask GET /ready")
    return runtime
