"""The arrows between the parts, and what is not imported until it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "peft", "vllm")


def imported_by(module: str) -> set[str]:
    """The top-level packages that are loaded after `module` has been imported in a fresh interpreter."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_arrows_between_the_parts_hold() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("module", ["rheostat_server.app", "rheostat_server.serve", "rheostat_server.engines"])
def test_the_app_imports_no_engine_until_one_is_needed(module: str) -> None:
    assert not imported_by(module) & set(HEAVY)


@pytest.mark.parametrize("module", ["scorers", "scorers.spec", "scorers.build", "scorers.text.folder"])
def test_scorers_are_described_and_checked_without_what_judges(module: str) -> None:
    assert not imported_by(f"rheostat_server.{module}") & {*HEAVY, "sklearn", "scipy", "fastapi", "starlette"}


@pytest.mark.parametrize("module", ["classifier", "reading", "text.text_scorer"])
def test_training_judges_by_the_servers_models_without_the_server(module: str) -> None:
    assert not imported_by(f"rheostat_server.scorers.{module}") & {"fastapi", "prometheus_client", "structlog", "vllm"}


@pytest.mark.parametrize("name", ["manifest", "control_text", "digest", "dials"])
def test_the_contract_imports_pydantic_alone(name: str) -> None:
    loaded = imported_by(f"rheostat_server.contract.{name}")
    assert not loaded & {*HEAVY, "fastapi", "starlette", "httpx", "yaml", "uvicorn", "structlog"}


def test_the_client_imports_nothing_of_ours() -> None:
    assert not imported_by("rheostat.cli") & {"rheostat_server", "rheostat_training", *HEAVY}
