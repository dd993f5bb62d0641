"""YAML of the pages is read by what would read it: a policy, scorers, a training run, Prometheus."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from rheostat_server.callers.file import read_policy
from rheostat_server.scorers.spec import ScorersFile
from rheostat_training.config import RunConfig, parse_config
from tests.docs.blocks import Block, every_block
from tools.processes import ROOT


def check_policy(block: Block, folder: Path) -> None:
    path = folder / "policy.yaml"
    path.write_text(block.text)
    policy, _ = read_policy(path)
    assert policy.envelopes


def check_scorers(block: Block, _: Path) -> None:
    assert ScorersFile.model_validate(yaml.safe_load(block.text)).scorers


def check_run(block: Block, _: Path) -> None:
    assert parse_config(yaml.safe_load(block.text))


def check_prometheus(block: Block, _: Path) -> None:
    found = yaml.safe_load(block.text)
    assert {*found} <= {"global", "scrape_configs", "rule_files"}
    assert all((ROOT / file).exists() for file in found["rule_files"])


CHECKS: Final[dict[str, Callable[[Block, Path], None]]] = {
    "envelopes": check_policy,
    "scorers": check_scorers,
    "scrape_configs": check_prometheus,
    **dict.fromkeys((field.name for field in fields(RunConfig)), check_run),
}
"""By a key that the file has."""


@pytest.mark.parametrize("block", [block for block in every_block("yaml") if block.is_run], ids=str)
def test_a_file_is_one_that_its_reader_takes(block: Block, tmp_path: Path) -> None:
    found: dict[str, Any] = yaml.safe_load(block.text)
    checks = [check for key, check in CHECKS.items() if key in found]
    assert checks, f"nothing reads a file with {[*found]}; known are files with one of {[*CHECKS]}"
    checks[0](block, tmp_path)
