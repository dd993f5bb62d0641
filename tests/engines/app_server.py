"""Our app on a real port, for engines that do not bring a server."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from rheostat_server.adapters import AdapterStore
from rheostat_server.app import create_app
from rheostat_server.engines import Engine
from rheostat_server.serve import make_runtime
from rheostat_server.settings import Settings
from tools.processes import free_port


@contextmanager
def app_server(engine: Engine, adapters: AdapterStore, scorers: Path | None = None) -> Generator[str, None, None]:
    """The server's URL; it runs in a thread until the block ends, and closes the engine."""
    app = create_app(make_runtime(engine, adapters, Settings(), scorers))
    port = free_port()
    config = uvicorn.Config(
        app, port=port, log_config=None, log_level="warning", ws="none", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name=f"server of {engine.name}")
    thread.start()
    try:
        _wait(server, thread)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    while not server.started:
        assert thread.is_alive(), "the server stopped before it had started"
        time.sleep(0.01)
