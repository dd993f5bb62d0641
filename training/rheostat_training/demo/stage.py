"""One stage of a build: skipped when inputs and outputs are as they were, begun anew when its inputs changed."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rheostat_training.resume import write_json

BEGUN_FILE: Final = "begun.json"
DONE_FILE: Final = "done.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """A name, what its result depends on, and the work, which writes into the folder that it is given."""

    name: str
    inputs: Mapping[str, Any]
    work: Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class StageResult:
    """Where a stage's files lie, their digest, and whether they were there already."""

    folder: Path
    digest: str
    skipped: bool


def run_stage(stage: Stage, root: Path) -> StageResult:
    """Run a stage in its own folder; a run that was cut off is gone on with if its inputs are the same."""
    folder = root / stage.name
    marks = root / "stages" / stage.name
    inputs = json.loads(json.dumps(stage.inputs, sort_keys=True, default=str))
    done = _read(marks / DONE_FILE)
    if done and done["inputs"] == inputs and done["outputs"] == tree_digest(folder):
        return StageResult(folder, done["outputs"], skipped=True)
    if done or _read(marks / BEGUN_FILE) != inputs:
        shutil.rmtree(folder, ignore_errors=True)
        (marks / DONE_FILE).unlink(missing_ok=True)
        write_json(marks / BEGUN_FILE, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    stage.work(folder)
    digest = tree_digest(folder)
    write_json(marks / DONE_FILE, {"inputs": inputs, "outputs": digest})
    return StageResult(folder, digest, skipped=False)


def tree_digest(folder: Path) -> str:
    """A digest over the names and bytes of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{total.hexdigest()}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None
