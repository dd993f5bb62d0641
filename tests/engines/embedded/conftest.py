"""One embedded engine with the tiny model and its two adapters, and transformers' own to compare it with."""

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest
import transformers

from rheostat_server.engines.embedded import EmbeddedEngine
from tests.engines.embedded.asking import Reference
from tests.tiny import TinyAdapter


@pytest.fixture(scope="session")
def engine(tiny_model: Path, tiny_adapters: list[TinyAdapter]) -> Generator[EmbeddedEngine, None, None]:
    folders = {adapter.id: adapter.folder for adapter in tiny_adapters}
    engine = EmbeddedEngine.load(tiny_model, served_name="tiny", adapters=folders, max_batch=16, threads=1)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture
def own_engine(tiny_model: Path) -> Generator[EmbeddedEngine, None, None]:
    """An engine of the test's own, to be killed or crowded: four rows, no adapters."""
    engine = EmbeddedEngine.load(tiny_model, served_name="tiny", max_batch=4, threads=1)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def references(tiny_model: Path, tiny_adapters: list[TinyAdapter]) -> dict[str, Reference]:
    """By the name under which the engine serves the same."""
    adapted = {adapter.id: Reference.load(tiny_model, adapter.folder) for adapter in tiny_adapters}
    return {"tiny": Reference.load(tiny_model), **adapted}


@pytest.fixture(scope="session", autouse=True)
def _no_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()
