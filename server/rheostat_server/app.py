"""The FastAPI app: our routes and error handlers, on an app of our own or on vLLM's."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from rheostat_server.api import admin, chat, control, health, metrics, models, page, score, sweep
from rheostat_server.api.errors import error_body, render_bug, render_error, render_gone
from rheostat_server.api.expected import Expected
from rheostat_server.api.json_response import json_response
from rheostat_server.api.openapi import describe
from rheostat_server.api.recorded import Recorded
from rheostat_server.api.request_id import RequestId
from rheostat_server.api.traced import Traced
from rheostat_server.errors import RheostatError
from rheostat_server.runtime import Runtime, runtime_in


def create_app(runtime: Runtime) -> FastAPI:
    """An app of our own, for engines that do not bring a server."""
    app = FastAPI(title="Rheostat")
    add_routes(app)
    app.include_router(metrics.router)
    app.add_exception_handler(HTTPException, _render_http_error)
    app.add_exception_handler(Exception, render_bug)
    app.state.rheostat = runtime
    return app


def add_routes(app: FastAPI) -> None:
    """Puts our routes on any FastAPI app; they find the Runtime as `app.state.rheostat`, which lives with the app."""
    known = list(app.routes)
    for part in (chat, models, control, score, sweep, admin, health, page):
        app.include_router(part.router)
    ours = [route for route in app.routes if isinstance(route, Route) and route not in known]
    recorded = [route for route in ours if route.path.startswith("/v1/")]
    for route in recorded:
        route.app = Traced(Expected(Recorded(route.app, route.path)), route.path)
    describe(app, [route.path_format for route in recorded])
    app.add_middleware(RequestId)
    app.add_exception_handler(RheostatError, render_error)
    app.add_exception_handler(ClientDisconnect, render_gone)
    _open_runtime_with(app)


def _open_runtime_with(app: FastAPI) -> None:
    """Adds to what the app's lifespan does already, as vLLM's does; there too the Runtime is made before it."""
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def and_runtime(served: Any) -> AsyncGenerator[Any, None]:
        async with lifespan(served) as state:
            runtime = runtime_in(app)
            if runtime and runtime.shelf:
                runtime.shelf.reload_on_hangup()
            try:
                yield state
            finally:
                if runtime:
                    await runtime.close()

    app.router.lifespan_context = and_runtime


async def _render_http_error(request: Request, exc: Exception) -> Response:
    """Unknown paths and methods, in OpenAI's shape like every other error."""
    if not isinstance(exc, HTTPException):
        raise TypeError(f"this handles HTTPException, not {type(exc).__name__}") from exc
    error = RheostatError(f"{request.method} {request.url.path}: {exc.detail}")
    body = error_body(error)
    body["error"] |= {"type": "invalid_request_error", "code": exc.detail.lower().replace(" ", "_")}
    return json_response(body, status=exc.status_code, headers=exc.headers)
