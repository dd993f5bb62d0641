"""Our app on a real port, for engines that do not bring a server."""

import asyncio
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from rheostat_server.adapters import AdapterStore
from rheostat_server.app import create_app
from rheostat_server.blending.store import BlendStore
from rheostat_server.engines import Engine
from rheostat_server.runtime import Runtime
from rheostat_server.serve import NO_BLENDS, make_runtime
from rheostat_server.settings import Settings
from tools.processes import free_port


@dataclass(frozen=True, slots=True)
class Running:
    """A server in a thread of its own, and its event loop."""

    url: str
    loop: asyncio.AbstractEventLoop


class _Server(uvicorn.Server):
    """Tells its event loop."""

    loop: asyncio.AbstractEventLoop

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().serve(sockets)


@contextmanager
def app_server(
    engine: Engine, adapters: AdapterStore, scorers: Path | None = None, *, blends: BlendStore = NO_BLENDS
) -> Generator[str, None, None]:
    """The server's URL; it runs in a thread until the block ends, and closes the engine."""
    with runtime_server(make_runtime(engine, adapters, Settings(), scorers, blends=blends)) as running:
        yield running.url


@contextmanager
def runtime_server(runtime: Runtime) -> Generator[Running, None, None]:
    """The same for a runtime that is there already."""
    port = free_port()
    config = uvicorn.Config(
        create_app(runtime), port=port, log_config=None, log_level="warning", ws="none", timeout_graceful_shutdown=2
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, name=f"server of {runtime.engine.name}")
    thread.start()
    try:
        _wait(server, thread)
        yield Running(f"http://127.0.0.1:{port}", server.loop)
    finally:
        server.should_exit = True
        thread.join()


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    while not server.started:
        assert thread.is_alive(), "the server stopped before it had started"
        time.sleep(0.01)
