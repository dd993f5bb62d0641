"""The gate before vLLM's router: every path is closed but ours and a short list of vLLM's."""

from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from rheostat_server.api.errors import error_body
from rheostat_server.api.json_response import json_response
from rheostat_server.errors import NotFound

# Read-only, and none of them reaches the model.
OPEN_OF_VLLM: Final = frozenset(
    {"/metrics", "/load", "/version", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
)
OFFLINE_DOCS: Final = "/static"
READING: Final = frozenset({"GET", "HEAD"})


class Gate:
    """ASGI middleware that answers 404 for all but open routes, whoever added the others and whenever.

    It is the innermost middleware, so it sees what the router will see, and judges the route that the router will take:
    another plugin's in the place of ours is closed too.
    """

    def __init__(self, app: ASGIApp, *, ours: Sequence[BaseRoute], of_vllm: Sequence[BaseRoute]) -> None:
        self._app = app
        self._ours = ours
        self._of_vllm = of_vllm

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
        else:
            await _refusal(scope)(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        if scope["type"] != "http":
            return False
        taken = next((route for route in scope["app"].routes if route.matches(scope)[0] is Match.FULL), None)
        return taken in self._ours or (taken in self._of_vllm and _only_reads(scope))


def close_all_but(ours: Sequence[BaseRoute], app: FastAPI) -> None:
    """Puts the gate before the router of `app`, and takes what is closed out of its table and so out of its docs."""
    of_vllm = _open_of_vllm(app.routes)
    app.add_middleware(Gate, ours=ours, of_vllm=of_vllm)
    app.router.routes[:] = [route for route in app.routes if route in ours or route in of_vllm]


def _open_of_vllm(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """The first route of each open path: vLLM's own stand before those of plugins."""
    first: dict[str, BaseRoute] = {}
    for route in routes:
        if isinstance(route, (Route, Mount)) and route.path in {*OPEN_OF_VLLM, OFFLINE_DOCS}:
            first.setdefault(route.path, route)
    return list(first.values())


def _only_reads(scope: Scope) -> bool:
    """Some of vLLM's routes are mounted, and so match more paths and methods than are open."""
    path = _route_path(scope)
    return scope["method"] in READING and (path in OPEN_OF_VLLM or path.startswith(f"{OFFLINE_DOCS}/"))


def _route_path(scope: Scope) -> str:
    """The path less the prefix (`--root-path`) under which a proxy serves us, as the router reads it."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def _refusal(scope: Scope) -> ASGIApp:
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        return WebSocketClose(code=1008, reason="nothing is served here")
    return _not_found(scope)


def _not_found(scope: Scope) -> Response:
    error = NotFound(f"{scope.get('method', 'websocket')} {scope['path']} is not served here; see GET /openapi.json")
    return json_response(error_body(error), status=error.status)
