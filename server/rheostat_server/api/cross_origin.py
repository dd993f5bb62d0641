"""Lets pages of other origins use the server: the CORS headers that browsers ask for."""

from collections.abc import Collection
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rheostat_server.settings import Settings

READABLE: Final = (
    "X-Request-ID",
    "Retry-After",
    *(
        f"X-RateLimit-{part}-{what}"
        for what in ("Requests", "Tokens", "Candidates")
        for part in ("Limit", "Remaining", "Reset")
    ),
)
"""Headers of ours that a page may read; others than a few plain ones are hidden from it."""


def open_to(origins: Collection[str], app: ASGIApp) -> ASGIApp:
    """The app for pages of these origins too; without any, the app itself.

    It stands outside of all else, so that a page can read every answer, an internal error's too. Any header may be
    sent, as clients have their own; cookies never count, as keys are no cookies.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=("GET", "POST"), allow_headers=("*",), expose_headers=READABLE
    )


class CrossOrigin:
    """The same as ASGI middleware for vLLM's server, which makes it by its name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = open_to(Settings().cors_origins, app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
