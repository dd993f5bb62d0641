"""`X-Request-ID`: taken from the request or made, on every response, and on every line that is logged meanwhile."""

import re
import uuid
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER: Final = "X-Request-ID"
_KEY: Final = "rheostat_request_id"
_PLAIN: Final = re.compile(rb"[\x21-\x7e]{1,128}")


def request_id_of(scope: Scope) -> str:
    """The request's own id where it is one plain word of at most 128 characters; else one that is made for it."""
    if _KEY not in scope:
        sent = [value for name, value in scope["headers"] if name == b"x-request-id"]
        fits = len(sent) == 1 and _PLAIN.fullmatch(sent[0])
        scope[_KEY] = sent[0].decode() if fits else uuid.uuid4().hex
    known: str = scope[_KEY]
    return known


class RequestId:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"])[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, with_id)
