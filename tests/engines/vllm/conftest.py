"""Tests here need a build of vLLM; where there is none they are skipped."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    with warnings.catch_warnings(action="ignore"):  # other people's, at import, before a test can say what it allows
        import vllm.entrypoints.cli.serve  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("vllm")
