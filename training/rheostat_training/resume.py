"""A stage's folder belongs to one set of inputs, so that a resumed run never mixes two."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

INPUTS_FILE = "inputs.json"


class AnotherRun(ValueError):
    """The output folder holds the work of other inputs; the message names what differs."""


def claim(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Takes a folder for these inputs, or finds that it is already theirs.

    Raises:
        AnotherRun: the folder was begun with other inputs.
    """
    path = folder / INPUTS_FILE
    wanted = json.loads(json.dumps(inputs, sort_keys=True))
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
        return
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise AnotherRun(f"{path} is none of ours: it holds a {type(found).__name__}; give another folder")
    different = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if different:
        key = different[0]
        raise AnotherRun(
            f"{folder} was begun with {key} = {found.get(key)!r}, now it is {wanted.get(key)!r}; "
            "give another folder, or remove this one"
        )


def write_json(path: Path, value: object) -> Path:
    """Writes a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    return partial.replace(path)


def write_value(path: Path, value: object, kind: Any) -> Path:
    """Writes a value of a known type as JSON, whole or not at all; `read_value` gives it back."""
    return write_json(path, TypeAdapter(kind).dump_python(value, mode="json"))


def read_value(path: Path, kind: Any) -> Any:
    """A value that `write_value` wrote."""
    return TypeAdapter(kind).validate_json(path.read_bytes())


def rows_digest(rows: Iterable[object]) -> str:
    """A digest of rows in their order."""
    total = hashlib.sha256()
    for row in rows:
        total.update(repr(row).encode())
        total.update(b"\n")
    return f"sha256:{total.hexdigest()}"


def plan_facts(plan: Any) -> dict[str, Any]:
    """A plan's fields as JSON values."""
    return dict(dataclasses.asdict(plan))
