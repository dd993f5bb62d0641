"""Fixtures that tests of several folders share."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.blends import TinyBlend, build_blend
from tests.scorers.tiny_models import write_scorers
from tests.tiny import TinyAdapter, build_adapters, build_base

settings.register_profile("rheostat", deadline=None)  # how long a thing takes is for benchmarks/ to say
settings.load_profile("rheostat")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_adapters(tiny_model: Path) -> list[TinyAdapter]:
    return build_adapters(tiny_model.parent, base=tiny_model)


@pytest.fixture(scope="session")
def tiny_blend(tiny_model: Path) -> TinyBlend:
    return build_blend(tiny_model.parent / "blend", base=tiny_model)


@pytest.fixture(scope="session")
def tiny_scorers(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scorers' file for answers of the tiny model."""
    return write_scorers(tmp_path_factory.mktemp("scorers"), base=tiny_model)
