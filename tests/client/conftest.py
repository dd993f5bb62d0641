"""Both clients by turns, pauses that take no time, and a server in this process."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rheostat_server.engines.fake import FakeEngine
from tests.client.twins import Async, Sync, Twin
from tests.engines.app_server import runtime_server
from tests.reranking.rigs import Rig
from tools.processes import free_port, started, wait_until_ready


@pytest.fixture(params=[Sync, Async])
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Twin:
    monkeypatch.delenv("RHEOSTAT_BASE_URL", raising=False)
    monkeypatch.delenv("RHEOSTAT_API_KEY", raising=False)
    made: Twin = request.param()
    return made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited."""
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("rheostat.connection.time.sleep", waited.append)
    monkeypatch.setattr("rheostat.connection.asyncio.sleep", pause)
    return waited


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(("demo",), words=20)


@pytest.fixture
def url(engine: FakeEngine) -> Iterator[str]:
    with runtime_server(Rig(engine=engine).runtime()) as running:
        yield running.url


@contextmanager
def _demo(log: Path) -> Generator[str]:
    port = free_port()
    with started(["rheostat", "serve", "--port", str(port)], log=log) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}/ready", log=log)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def demo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo, as `rheostat serve` serves it."""
    with _demo(tmp_path_factory.mktemp("demo") / "demo.log") as url:
        yield url
