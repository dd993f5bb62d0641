"""How a route reaches the running server."""

from starlette.requests import Request

from rheostat_server.errors import EngineUnavailable
from rheostat_server.runtime import Runtime


def runtime_of(request: Request) -> Runtime:
    """The app's runtime.

    Raises:
        EngineUnavailable: the server has not finished starting.
    """
    runtime = getattr(request.app.state, "rheostat", None)
    if not isinstance(runtime, Runtime):
        raise EngineUnavailable("the server is starting; ask GET /ready")
    return runtime
