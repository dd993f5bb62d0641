"""docs/operations.md: it tells every metric with its labels, and the settings and log lines that it names exist."""

import re
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY

from rheostat_server.settings import Settings
from tests.operations.exported import described

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "operations.md").read_text()
ROWS: Final = re.findall(r"^\| (`rheostat_.*?) \| (.*?) ?\| (.*?) \|$", PAGE, re.MULTILINE)
SOURCE: Final = "\n".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))


def test_every_metric_stands_in_the_table_with_its_labels() -> None:
    told = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for names, labels, _ in ROWS
        for name in re.findall(r"`(\w+)`", names)
    }
    assert told == described()


def test_no_metric_of_the_server_was_forgotten() -> None:
    import rheostat_server.app
    import rheostat_server.serve  # noqa: F401

    families = {family.name for family in REGISTRY.collect() if family.name.startswith("rheostat_")}
    assert families == {name.removesuffix("_total") for name in described()}


def test_what_a_metric_is_called_elsewhere_is_its_name() -> None:
    samples = {f"{name}{part}" for name in described() for part in ("", "_sum", "_count", "_bucket")}
    for page in (*ROOT.glob("docs/*.md"), ROOT / "README.md"):
        named = {each for each in re.findall(r"\brheostat_\w+", page.read_text()) if not is_package(each)}
        assert named - samples == set(), page.name


def is_package(name: str) -> bool:
    return name in {"rheostat_server", "rheostat_training"}


def test_the_settings_that_it_names_exist() -> None:
    known = {name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"RHEOSTAT_(\w+)", PAGE)) <= known


def test_the_lines_of_the_log_that_it_names_are_logged() -> None:
    [table] = re.findall(r"^\| `event` \|.*?\n\n", PAGE, re.DOTALL | re.MULTILINE)
    events = [event for row in table.strip().splitlines()[2:] for event in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(events) > 10
    assert [event for event in events if f'"{event}"' not in SOURCE] == []
