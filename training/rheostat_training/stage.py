"""One stage of a build: skipped when inputs and outputs are as they were, begun anew when its inputs changed."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rheostat_training.progress import Progress
from rheostat_training.resume import write_json

BEGUN_FILE: Final = "begun.json"
DONE_FILE: Final = "done.json"

Work = Callable[[Path], Mapping[str, Any] | None]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """A name, what its result depends on, and the work, which writes into the folder that it is given.

    What the work returns are its figures, JSON values.
    """

    name: str
    inputs: Mapping[str, Any]
    work: Work


@dataclass(frozen=True, slots=True)
class StageResult:
    """Where a stage's files lie, their digest, its figures and how long it took, and whether it was there already."""

    folder: Path
    digest: str
    skipped: bool
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True, slots=True)
class Workshop:
    """Runs stages in one folder, each knowing the digests of those before it, and says what it did."""

    root: Path
    progress: Progress
    say: Say

    def run(
        self, name: str, plan: object, before: Mapping[str, StageResult], work: Work, **more: object
    ) -> StageResult:
        """`plan` and `more` are what the result depends on besides the stages before it."""
        inputs = {"plan": plan, **more, **{stage: result.digest for stage, result in before.items()}}
        result = run_stage(Stage(name, inputs, work), self.root)
        self.say(f"{name}: {'unchanged' if result.skipped else f'done in {result.seconds:.0f} s'}{_told(result)}")
        return result


def run_stage(stage: Stage, root: Path) -> StageResult:
    """Run a stage in its own folder; a run that was cut off is gone on with if its inputs are the same.

    `root/stages/<name>/done.json` then holds its inputs, the digest of its outputs, its figures and its seconds, those
    of runs that were cut off not counted.
    """
    folder = root / stage.name
    marks = root / "stages" / stage.name
    inputs = json.loads(json.dumps(stage.inputs, sort_keys=True, default=str))
    done = _read(marks / DONE_FILE)
    if done and done["inputs"] == inputs and done["outputs"] == tree_digest(folder):
        return StageResult(folder, done["outputs"], True, done.get("figures", {}), done.get("seconds", 0.0))
    if done or _read(marks / BEGUN_FILE) != inputs:
        shutil.rmtree(folder, ignore_errors=True)
        (marks / DONE_FILE).unlink(missing_ok=True)
        write_json(marks / BEGUN_FILE, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    figures = json.loads(json.dumps(stage.work(folder) or {}))
    seconds = round(time.monotonic() - started, 1)
    digest = tree_digest(folder)
    write_json(marks / DONE_FILE, {"inputs": inputs, "outputs": digest, "figures": figures, "seconds": seconds})
    return StageResult(folder, digest, False, figures, seconds)


def figures_of(root: Path, stage: str) -> dict[str, Any]:
    """The figures of a stage that is done.

    Raises:
        FileNotFoundError: it is not done.
    """
    found: dict[str, Any] = json.loads((root / "stages" / stage / DONE_FILE).read_text())["figures"]
    return found


def tree_digest(folder: Path) -> str:
    """A digest over the names and bytes of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()}"


def _told(result: StageResult) -> str:
    """The figures that are one number or one word."""
    told = [f"{name} {value}" for name, value in result.figures.items() if isinstance(value, (int, float, str))]
    return f" ({', '.join(told)})" if told else ""


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except json.JSONDecodeError as exc:
        raise ValueError(f"{path} is not JSON ({exc}); remove it, and the stage is made again") from exc
