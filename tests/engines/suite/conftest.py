"""One server for each engine, started when its first test asks for it and shared by all."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from torch import Tensor

from rheostat_server.adapters import AdapterStore, load_adapters
from rheostat_server.blending.store import BlendStore, load_blends
from rheostat_server.contract.digest import base_model_digest
from rheostat_server.engines.blend_files import BlendFiles
from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.engines.embedded.model import load_model
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.engines.remote import RemoteEngine, Upstream, UpstreamBlends
from tests.blends import TinyBlend
from tests.engines.app_server import app_server
from tests.engines.suite.served import ENGINES, Served
from tests.engines.vllm.server import VllmServer
from tests.tiny import BASE_NAME, MAX_POSITIONS, TinyAdapter

VLLM_RUNNING: Final = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")


@pytest.fixture(scope="session", params=ENGINES)
def served(request: pytest.FixtureRequest) -> Served:
    """The engine that a test is about."""
    served: Served = request.getfixturevalue(f"served_{request.param}")
    return served


@pytest.fixture
def idle(served: Served) -> Served:
    """The engine, without requests of tests that came before."""
    served.wait_until_running(0)
    return served


@pytest.fixture(scope="session")
def freed_within(served: Served) -> float:
    """Seconds: half of what a request takes to which its client stays. After them, it was not the end that freed it."""
    begun = time.monotonic()
    served.answer(served.long_body())
    return (time.monotonic() - begun) / 2


@pytest.fixture(scope="session")
def store(tiny_model: Path, tiny_adapters: list[TinyAdapter]) -> AdapterStore:
    return load_adapters([adapter.folder for adapter in tiny_adapters], base_digest=base_model_digest(tiny_model))


@pytest.fixture(scope="session")
def blends(tiny_model: Path, tiny_blend: TinyBlend) -> BlendStore:
    return load_blends([tiny_blend.folder], base_digest=base_model_digest(tiny_model))


@pytest.fixture(scope="session")
def served_fake(store: AdapterStore, blends: BlendStore, tiny_scorers: Path) -> Generator[Served, None, None]:
    orders = Orders(seconds_per_token=0.002)
    engine = FakeEngine([BASE_NAME], store.ids, context=MAX_POSITIONS, orders=orders, blend_room=25)

    def kill() -> None:
        engine.dead = True

    with app_server(engine, store, tiny_scorers, blends=blends) as url:
        yield Served("fake", url, BASE_NAME, *two_ids(store), running=lambda: engine.running, kill=kill)


@pytest.fixture(scope="session")
def served_embedded(
    tiny_model: Path, store: AdapterStore, blends: BlendStore, tiny_scorers: Path
) -> Generator[Served, None, None]:
    components = blends.folders()
    model = load_model(tiny_model, adapters=[*store.folders().values(), *components.values()])
    engine = EmbeddedEngine(model, served_name=BASE_NAME, adapters=store.ids, components=list(components), threads=1)

    def kill() -> None:
        model.logits = broken  # type: ignore[method-assign, assignment]

    def broken(*_: object) -> Tensor:
        raise RuntimeError("the model fell over")

    with app_server(engine, store, tiny_scorers, blends=blends) as url:
        yield Served(
            "embedded",
            url,
            BASE_NAME,
            *two_ids(store),
            running=lambda: engine.running + engine.waiting,
            kill=kill,
        )


@pytest.fixture(scope="session")
def served_vllm(rheostat_in_vllm: VllmServer, store: AdapterStore) -> Generator[Served, None, None]:
    with ExitStack() as stack:
        yield Served(
            "vllm",
            rheostat_in_vllm.url,
            BASE_NAME,
            warm=store.ids[0],
            cold=store.ids[1],
            running=_counting(rheostat_in_vllm, stack),
            kill=lambda: os.kill(rheostat_in_vllm.engine_process(), signal.SIGKILL),
        )


@pytest.fixture(scope="session")
def served_remote(
    bare_vllm: VllmServer,
    store: AdapterStore,
    blends: BlendStore,
    tiny_scorers: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Served, None, None]:
    shared = UpstreamBlends(BlendFiles.within(tmp_path_factory.mktemp("shared"), for_others=True), room=25)
    connecting = RemoteEngine.connect(
        Upstream(bare_vllm.url), adapters=store.folders(), blends=shared, trials=blends.trials()
    )
    engine = asyncio.run(connecting)
    with ExitStack() as stack, app_server(engine, store, tiny_scorers, blends=blends) as url:
        yield Served(
            "remote",
            url,
            BASE_NAME,
            *two_ids(store),
            running=_counting(bare_vllm, stack),
            kill=lambda: os.killpg(bare_vllm.process.pid, signal.SIGKILL),
        )


def two_ids(store: AdapterStore) -> tuple[str, str]:
    warm, cold = store.ids
    return warm, cold


def _counting(server: VllmServer, stack: ExitStack) -> Callable[[], int]:
    """Counts vLLM's requests on one connection kept open: a new one takes as long as some answers."""
    client = stack.enter_context(server.client())

    def running() -> int:
        lines = client.get("/metrics").text.splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith(VLLM_RUNNING)))

    return running


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What kills an engine comes after everything else, as others share it, and after pytest's own sorting."""
    items.sort(key=lambda item: item.path.name == "test_killed.py")
