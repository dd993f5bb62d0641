"""Reads the rows of prompt files: JSON lines by our own reader, which knows the lines, the rest through `datasets`."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import datasets
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

JSON_LINES: Final = (".jsonl", ".jsonl.gz")
BY_DATASETS: Final = {".parquet": "parquet", ".csv": "csv"}
SUFFIXES: Final = (*JSON_LINES, ".json", *BY_DATASETS)
ONLY_SPLIT: Final = "train"


class UnreadablePrompts(ValueError):
    """A source of prompts cannot be read, or too little of it is good; the message says what would help."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row and its place, such as "prompts.jsonl, line 7"; `broken` says why it could not be read."""

    line: int
    place: str
    fields: dict[str, Any]
    broken: str = ""


def raw_rows(source: str, *, split: str, subset: str | None, column: str | None) -> tuple[list[str], list[RawRow]]:
    """The columns and rows of a file, of a folder, or of a data set on the Hub.

    Raises:
        UnreadablePrompts: it is not there, cannot be reached, or is not what its name says.
    """
    path = Path(source).expanduser()
    if path.is_file():
        _only_split(source, split, subset)
        rows = _file(path)
    elif path.is_dir():
        rows = _folder(path, split, subset, column)
    elif source.endswith(SUFFIXES) or source.startswith(("/", ".", "~")):
        raise UnreadablePrompts(f"there is no file or folder {source}")
    else:
        rows = _table(_hub(source, split, subset), source, column)
    return list(dict.fromkeys(name for row in rows for name in row.fields)), rows


def _only_split(source: str, split: str, subset: str | None) -> None:
    if split != ONLY_SPLIT:
        raise UnreadablePrompts(f"split is {split!r}, but {source} is one file, which is all {ONLY_SPLIT!r}")
    if subset is not None:
        raise UnreadablePrompts(f"subset is {subset!r}, but {source} is one file, which has none")


def _file(path: Path) -> list[RawRow]:
    if path.name.endswith(JSON_LINES):
        return _json_lines(path)
    if path.suffix == ".json":
        return _json(path)
    if path.suffix in BY_DATASETS:
        with _translated(str(path)):
            data = datasets.load_dataset(BY_DATASETS[path.suffix], data_files=str(path), split=ONLY_SPLIT)
        return _table(data, path.name, None)
    raise UnreadablePrompts(f"{path} ends in {path.suffix!r}; prompt files end in {', '.join(SUFFIXES)}")


def _folder(path: Path, split: str, subset: str | None, column: str | None) -> list[RawRow]:
    """A folder that `datasets` saved, or one of data files, whose names tell their splits."""
    if (path / "dataset_dict.json").exists() or (path / "dataset_info.json").exists():
        if subset is not None:
            raise UnreadablePrompts(f"subset is {subset!r}, but {path} is a saved data set, which has none")
        return _table(_saved(path, split), path.name, column)
    with _translated(str(path)):
        files = (datasets.load_dataset_builder(str(path), name=subset).config.data_files or {}).get(split, [])
        if not all(file.endswith(JSON_LINES) for file in files):
            return _table(datasets.load_dataset(str(path), name=subset, split=split), path.name, column)
    if not files:
        raise UnreadablePrompts(f"{path} has no files of split {split!r}")
    return [row for file in files for row in _json_lines(Path(file))]


def _saved(path: Path, split: str) -> Any:
    with _translated(str(path)):
        found = datasets.load_from_disk(str(path))
    parts = found.items() if isinstance(found, dict) else [(found.split or ONLY_SPLIT, found)]
    splits = {str(name): part for name, part in parts}
    if split not in splits:
        raise UnreadablePrompts(f"split is {split!r}; {path} has {', '.join(splits)}")
    return splits[split]


def _hub(name: str, split: str, subset: str | None) -> Any:
    try:
        with _translated(name):
            return datasets.load_dataset(name, name=subset, split=split)
    except (OSError, HfHubHTTPError) as exc:
        raise UnreadablePrompts(
            f"{name} is no file or folder here, and the Hub could not be asked for a data set of that name "
            f"({type(exc).__name__}); give a file, or download the data set where there is a network"
        ) from exc


def _table(data: Any, name: str, column: str | None) -> list[RawRow]:
    """Rows of text columns alone: pictures and sounds are not decoded."""
    kept = [each for each in data.column_names if each in (column, "id") or _is_text(data.features[each])]
    rows = data.select_columns(kept)
    return [RawRow(number, f"{name}, row {number}", dict(row)) for number, row in enumerate(rows, start=1)]


def _is_text(feature: Any) -> bool:
    return not isinstance(feature, datasets.Image | datasets.Audio | datasets.Video | datasets.Pdf)


def _json(path: Path) -> list[RawRow]:
    """A file that is one array, or else JSON lines in spite of its name."""
    with _opened(path) as file:
        data = file.read()
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return _json_lines(path)
    try:
        array = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:
        raise UnreadablePrompts(f"{path} begins as an array, but is not JSON: {_why(exc)}") from exc
    return [_row(value, number, f"{path.name}, row {number}") for number, value in enumerate(array, start=1)]


def _json_lines(path: Path) -> list[RawRow]:
    with _opened(path) as file:
        lines = list(enumerate(file, start=1))
    return [_line(line, number, f"{path.name}, line {number}") for number, line in lines if line.strip()]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield cast("BinaryIO", file)
    except (OSError, EOFError, zlib.error) as exc:
        raise UnreadablePrompts(f"{path} cannot be read: {exc}") from exc


def _line(line: bytes, number: int, place: str) -> RawRow:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:
        return RawRow(number, place, {}, f"is not JSON: {_why(exc)}")
    return _row(value, number, place)


def _row(value: object, number: int, place: str) -> RawRow:
    if not isinstance(value, dict):
        return RawRow(number, place, {}, f"is of type {type(value).__name__}; a row is an object with named fields")
    return RawRow(number, place, value)


def _why(exc: Exception) -> str:
    """What was wrong, without the text in which it was."""
    if isinstance(exc, json.JSONDecodeError):
        return f"{exc.msg} at column {exc.colno}"
    return "not UTF-8" if isinstance(exc, UnicodeDecodeError) else type(exc).__name__


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Errors of `datasets` as ours, and its progress bars off."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    except UnreadablePrompts:
        raise
    except (DatasetsError, EmptyDatasetError, ValueError) as exc:
        raise UnreadablePrompts(f"{name} cannot be read: {exc.__cause__ or exc}") from exc
    finally:
        if shown:
            datasets.enable_progress_bars()
