"""`control.json`: what does not fit the schema is refused, and what is written is read back."""

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat_server.contract.manifest import (
    MANIFEST_FILE,
    DialLevels,
    Manifest,
    ManifestError,
    read_manifest,
    write_manifest,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4
WHOLE: dict[str, Any] = {
    "schema_version": 1,
    "name": "control",
    "base_model": {"name": "base", "digest": DIGEST},
    "dials": {"safety": {"levels": [0, 1]}, "helpfulness": {"levels": [0, 0.5, 1]}},
    "control_text": {"template": "[helpful={helpfulness:.2f}][harmless={safety:.2f}]"},
    "training": {"method": "exmate", "data_digests": {"examples": DIGEST}},
    "licence": "Apache-2.0",
    "weights_digest": DIGEST,
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(WHOLE)
    assert write_manifest(manifest, tmp_path) == tmp_path / MANIFEST_FILE
    assert read_manifest(tmp_path) == manifest
    assert manifest.id == "control@0123456789ab"
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_FILE]


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema_version": 2},
        {"name": "../control"},
        {"name": "control@1"},
        {"name": ""},
        {"mood": 1},
        {"base_model": {"name": "base", "digest": "sha256:12"}},
        {"dials": {"safety": {"levels": [0, 1]}}},
        {"dials": {**WHOLE["dials"], "mood": {"levels": [0, 1]}}},
        {"dials": {**WHOLE["dials"], "safety": {"levels": [1, 0]}}},
        {"dials": {**WHOLE["dials"], "safety": {"levels": [0, 1.5]}}},
        {"dials": {**WHOLE["dials"], "safety": {"levels": [0, float("nan")]}}},
        {"control_text": {"template": "[harmless={safety:.2f}]"}},
        {"control_text": {**WHOLE["control_text"], "placement": "system"}},
        {"weights_digest": "0123456789ab"},
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_its_path(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({**WHOLE, **wrong}))
    with pytest.raises(ManifestError, match=MANIFEST_FILE):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", sorted(WHOLE.keys() - {"schema_version"}))
def test_a_manifest_that_lacks_a_field_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({key: part for key, part in WHOLE.items() if key != name}))
    with pytest.raises(ManifestError, match=name):
        read_manifest(tmp_path)


def test_a_dial_s_nearest_level_is_one_that_was_trained_within_an_operators_limits() -> None:
    levels = DialLevels(levels=[0, 0.25, 0.5, 1])
    assert [levels.nearest(value) for value in (0.0, 0.12, 0.125, 0.74, 0.75, 1.0)] == [0, 0, 0.25, 0.5, 1, 1]
    assert levels.nearest(0.3, (0.3, 1.0)) == 0.5
    assert levels.nearest(0.9, (0.0, 0.9)) == 0.5
    assert levels.nearest(0.8, (0.7, 0.9)) == 0.8
