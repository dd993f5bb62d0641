"""ASGI around the app, for what Ray's proxy does to requests and answers that pass through it."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rheostat_server.api.request_id import HEADER


class Bug(Exception):
    """Something that should not have happened, by its type alone."""


class BehindProxy:
    """Leaves the request's id to the proxy, which puts it on every answer, and hides what an exception says.

    What a replica raises is logged by Ray, in its process and in the proxy's, and may quote what people wrote. Our own
    log has told where it was.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(raw=message["headers"])[HEADER]
            await send(message)

        try:
            await self._app(scope, receive, without_id)
        except Exception as exc:  # noqa: BLE001, whatever it is, it is raised on without what it says
            raise Bug(type(exc).__qualname__) from None
