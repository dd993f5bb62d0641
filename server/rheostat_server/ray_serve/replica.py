"""One copy of the app, in a process of its own that Ray starts, asks for its health, and ends."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp

from rheostat_server.errors import EngineUnavailable
from rheostat_server.log import configure_logging
from rheostat_server.ray_serve.apps import APPS
from rheostat_server.ray_serve.behind_proxy import BehindProxy
from rheostat_server.ray_serve.figures import tell_forever
from rheostat_server.runtime import Runtime, runtime_in
from rheostat_server.serve import engine_for
from rheostat_server.settings import Settings

log = structlog.get_logger(__name__)


class Replica:
    """What Ray knows of a copy of the app. Its settings are its process's environment.

    To end it, Ray sends it no more requests, waits for those under way, ends the app's lifespan, and calls `__del__`.
    """

    def __init__(self, flags: Sequence[str]) -> None:
        self._flags = flags
        self._held = AsyncExitStack()
        self._app: FastAPI | None = None
        self._telling: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called once, in the event loop that will serve; Ray sends no request before it has returned."""
        settings = Settings()
        configure_logging(settings.log_level)
        make = APPS[engine_for(settings)]
        self._app = await self._held.enter_async_context(make(settings, self._flags))
        self._telling = asyncio.create_task(tell_forever())
        engine = self._runtime().engine
        log.info("rheostat serves on Ray", engine=engine.name, models=list(engine.models()))
        return BehindProxy(self._app)

    async def check_health(self) -> None:
        """Raises EngineUnavailable, for which Ray puts another replica in this one's place.

        An upstream is not asked for: another replica would find it no better.
        """
        engine = self._runtime().engine
        if engine.name != "remote":
            await engine.check_ready()

    async def __del__(self) -> None:
        if self._telling:
            self._telling.cancel()
        await self._held.aclose()

    def _runtime(self) -> Runtime:
        runtime = runtime_in(self._app) if self._app else None
        if runtime is None:
            raise EngineUnavailable("the replica is starting")
        return runtime
