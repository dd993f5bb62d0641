"""ASGI middleware without which `rheostat serve` starts no vLLM: nothing is answered unless the gate is in place.

vLLM only logs that an endpoint plugin could not be loaded, and then serves its own routes. It does fail to start when a
`--middleware` cannot be imported, and this one is outside the plugin's reach.
"""

from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from rheostat_server.api.errors import error_body
from rheostat_server.api.json_response import json_response
from rheostat_server.engines.vllm.gate import Gate
from rheostat_server.errors import EngineUnavailable

REASON: Final = (
    "vLLM did not load the endpoint plugin 'rheostat', so its own routes would be open; nothing is served. "
    "Its log says above why the plugin failed"
)


class GateRequired:
    """Ends the server's start, and answers 503 should it run all the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if has_gate(scope["app"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": REASON})
        elif scope["type"] == "http":
            error = EngineUnavailable(REASON)
            await json_response(error_body(error), status=error.status)(scope, receive, send)


def has_gate(app: FastAPI) -> bool:
    classes: list[object] = [middleware.cls for middleware in app.user_middleware]
    return Gate in classes
