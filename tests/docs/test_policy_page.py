"""docs/policy.md: its files are read as they stand, and every field of the file is on the page."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from rheostat_server.callers.file import read_policy
from rheostat_server.callers.schema import (
    ClaimPart,
    DialPart,
    EnvelopePart,
    FloorPart,
    KeyPart,
    OidcPart,
    PolicyPart,
    RatePart,
)

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
FILES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PARTS = (PolicyPart, EnvelopePart, DialPart, FloorPart, RatePart, KeyPart, OidcPart, ClaimPart)


@pytest.mark.parametrize("text", FILES)
def test_each_file_fits(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    policy, _ = read_policy(path)
    assert policy.envelopes


def test_there_are_files() -> None:
    assert len(FILES) == 2


@pytest.mark.parametrize("part", PARTS)
def test_every_field_is_on_the_page(part: type[BaseModel]) -> None:
    assert [name for name in part.model_fields if not re.search(rf"\b{name}\b", PAGE)] == []
