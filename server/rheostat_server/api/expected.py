"""Tells the audit log of requests that are open, so that it does not close before their records."""

from starlette.types import ASGIApp, Receive, Scope, Send

from rheostat_server.runtime import runtime_in


class Expected:
    """ASGI around a recorded route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = runtime_in(scope["app"])
        if runtime is None or runtime.admission.audit is None:
            await self._app(scope, receive, send)
            return
        with runtime.admission.audit.expecting():
            await self._app(scope, receive, send)
