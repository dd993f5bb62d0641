"""docs/settings.md tells every setting, its default and its sentence, as they are in the code."""

from pathlib import Path

from tools.settings_table import table

ROOT = Path(__file__).parents[2]


def test_the_settings_page_holds_the_table_of_the_code() -> None:
    assert table() in (ROOT / "docs/settings.md").read_text(), "run tools/settings_table.py and paste its output"
