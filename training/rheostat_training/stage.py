"""One stage of a build: skipped when inputs and outputs are as they were, begun anew when its inputs changed."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rheostat_training.progress import Progress
from rheostat_training.publish import withdraw
from rheostat_training.resume import write_json
from rheostat_training.tracking import FOLDER as TRACKING

MARKS: Final = "stages"
TAKEN_FILE: Final = "taken.txt"
TAKEN: Final = "What stages make lies in the folder around this one, and is replaced when they are made again.\n"
BEGUN_FILE: Final = "begun.json"
DONE_FILE: Final = "done.json"

Work = Callable[[Path], Mapping[str, Any] | None]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """A name, what its result depends on, and the work, which writes into the folder that it is given.

    What the work returns are its figures, JSON values. `parts` are folders in it that do not depend on some keys of
    `inputs["plan"]`: a part is kept where nothing else has changed. The work finds it as it left it.
    """

    name: str
    inputs: Mapping[str, Any]
    work: Work
    parts: Mapping[str, Collection[str]] = field(default_factory=dict)


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
        self,
        name: str,
        plan: object,
        before: Mapping[str, StageResult],
        work: Work,
        parts: Mapping[str, Collection[str]] | None = None,
        /,
        **more: object,
    ) -> StageResult:
        """`plan` and `more` are what the result depends on besides the stages before it; of `parts`, see `Stage`."""
        inputs = {"plan": plan, **more, **{stage: result.digest for stage, result in before.items()}}
        result = run_stage(Stage(name, inputs, work, parts or {}), self.root, self.say)
        self.say(f"{name}: {'unchanged' if result.skipped else f'done in {result.seconds:.0f} s'}{_told(result)}")
        return result


def run_stage(stage: Stage, root: Path, say: Say = print) -> StageResult:
    """Run a stage in its own folder; a run that was cut off is gone on with if its inputs are the same.

    `root/stages/<name>/done.json` then holds its inputs, its files and their digest, its figures and its seconds, those
    of runs that were cut off not counted. Files of others in its folder change nothing.
    """
    folder = root / stage.name
    marks = root / MARKS / stage.name
    inputs = json.loads(json.dumps(stage.inputs, sort_keys=True, default=str))
    done = _read(marks / DONE_FILE)
    before = done["inputs"] if done else _read(marks / BEGUN_FILE)
    same = before is not None and before == _known(before, inputs)
    changed = _changed(folder, done) if done else []
    if done and same and not changed:
        return StageResult(folder, done["outputs"], True, done.get("figures", {}), done.get("seconds", 0.0))
    if changed:
        say(f"{stage.name}: begun anew, since what it had made is no longer as it was: {_shown(folder, changed)}")
    if done or not same:
        _clear(folder, [] if changed or before is None else _kept(stage, before, _known(before, inputs)))
        (marks / DONE_FILE).unlink(missing_ok=True)
        write_json(marks / BEGUN_FILE, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    figures = json.loads(json.dumps(stage.work(folder) or {}))
    seconds = round(time.monotonic() - started, 1)
    files = _digests(folder, _made(folder))
    digest = _digest_of(files)
    facts = {"inputs": inputs, "files": files, "outputs": digest, "figures": figures, "seconds": seconds}
    write_json(marks / DONE_FILE, facts)
    return StageResult(folder, digest, False, figures, seconds)


def take(root: Path) -> None:
    """Marks a folder as one in which stages are made."""
    (root / MARKS).mkdir(parents=True, exist_ok=True)
    (root / MARKS / TAKEN_FILE).write_text(TAKEN)


def is_taken(root: Path) -> bool:
    """Whether stages are made in a folder; those of before there was a mark are known by what they had begun."""
    return (root / MARKS / TAKEN_FILE).exists() or any((root / MARKS).glob(f"*/{BEGUN_FILE}"))


def figures_of(root: Path, stage: str) -> dict[str, Any]:
    """The figures of a stage that is done.

    Raises:
        FileNotFoundError: it is not done.
    """
    found: dict[str, Any] = json.loads((root / "stages" / stage / DONE_FILE).read_text())["figures"]
    return found


def tree_digest(folder: Path) -> str:
    """A digest over the names and bytes of all files below a folder."""
    return _digest_of(_digests(folder, _below(folder)))


def _known(before: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that were written down before; of a newer kind, an older version's stages knew nothing."""
    return {name: value for name, value in inputs.items() if name in before}


def _changed(folder: Path, done: Mapping[str, Any]) -> list[str]:
    """The files of a stage that are no longer what it made; of one done before files were listed, whether any is."""
    if "files" not in done:
        return [] if done["outputs"] == tree_digest(folder) else ["."]
    listed: dict[str, str] = done["files"]
    there = _digests(folder, (folder / name for name in listed))
    return sorted(name for name, digest in listed.items() if there.get(name) != digest)


def _shown(folder: Path, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{folder / names[0]}{more}"


def _kept(stage: Stage, before: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """The parts that depend on nothing that has changed."""
    return [part for part, free in stage.parts.items() if _without(before, free) == _without(inputs, free)]


def _without(inputs: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {**inputs, "plan": {key: value for key, value in inputs["plan"].items() if key not in keys}}


def _clear(folder: Path, kept: Collection[str]) -> None:
    """Removes what lies in a folder but for these."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept:
            withdraw(path)


def _made(folder: Path) -> list[Path]:
    """What a stage has made: all files but hidden ones, and those of trackers, which nothing reads again."""
    return [
        path
        for path in _below(folder)
        if not any(part.startswith(".") or part == TRACKING for part in path.relative_to(folder).parts)
    ]


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """The digest of each file that is there, by its name below the folder."""
    found: dict[str, str] = {}
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _digest_of(files: Mapping[str, str]) -> str:
    total = hashlib.sha256()
    for name, digest in files.items():
        total.update(f"{name}\0".encode() + bytes.fromhex(digest))
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
