"""A stage is skipped, gone on with or begun anew, by what it depends on and what lies there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rheostat_training.stage import Stage, is_taken, run_stage, take, tree_digest


def write(text: str) -> Stage:
    def work(folder: Path) -> None:
        (folder / "result").write_text(text)

    return Stage("stage", {"text": text}, work)


def test_a_stage_that_is_done_is_skipped(tmp_path: Path) -> None:
    first = run_stage(write("a"), tmp_path)
    second = run_stage(write("a"), tmp_path)
    assert (first.skipped, second.skipped) == (False, True)
    assert first.digest == second.digest


def test_a_stage_with_other_inputs_starts_from_an_empty_folder(tmp_path: Path) -> None:
    run_stage(write("a"), tmp_path)
    (tmp_path / "stage" / "left over").write_text("from before")
    again = run_stage(write("b"), tmp_path)
    assert [path.name for path in again.folder.iterdir()] == ["result"]


def test_a_stage_whose_files_were_changed_is_run_again(tmp_path: Path) -> None:
    first = run_stage(write("a"), tmp_path)
    (first.folder / "result").write_text("spoilt")
    again = run_stage(write("a"), tmp_path)
    assert not again.skipped
    assert again.digest == first.digest


def test_a_stage_that_was_cut_off_finds_its_work_of_before(tmp_path: Path) -> None:
    def cut_off(folder: Path) -> None:
        (folder / "half").write_text("done so far")
        raise KeyboardInterrupt

    def go_on(folder: Path) -> None:
        assert (folder / "half").read_text() == "done so far"

    with pytest.raises(KeyboardInterrupt):
        run_stage(Stage("stage", {}, cut_off), tmp_path)
    assert not run_stage(Stage("stage", {}, go_on), tmp_path).skipped


@pytest.mark.parametrize("foreign", [".DS_Store", "notes.txt", "tracking/events"])
def test_files_of_others_in_a_stages_folder_change_nothing(tmp_path: Path, foreign: str) -> None:
    first = run_stage(write("a"), tmp_path)
    path = first.folder / foreign
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert run_stage(write("a"), tmp_path).skipped
    assert path.read_text() == "mine"


def test_what_trackers_wrote_may_be_cleaned_away(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "fit" / "tracking").mkdir(parents=True)
        (folder / "fit" / "tracking" / "events").write_text("the time")
        (folder / "result").write_text("made")

    first = run_stage(Stage("stage", {}, work), tmp_path)
    shutil.rmtree(first.folder / "fit")
    assert run_stage(Stage("stage", {}, work), tmp_path).skipped


def test_a_file_that_was_changed_is_named_before_the_stage_is_made_again(tmp_path: Path) -> None:
    first = run_stage(write("a"), tmp_path)
    (first.folder / "result").write_text("spoilt")
    said: list[str] = []

    def say(line: str) -> None:
        said.append(f"{line}; now {(first.folder / 'result').read_text()}")

    run_stage(write("a"), tmp_path, say)
    assert len(said) == 1
    assert said[0].endswith(f"no longer as it was: {first.folder / 'result'}; now spoilt")


def test_a_stage_of_before_files_were_listed_is_done_while_its_folder_is_as_it_was(tmp_path: Path) -> None:
    first = run_stage(write("a"), tmp_path)
    assert first.digest == tree_digest(first.folder)
    path = tmp_path / "stages" / "stage" / "done.json"
    done = json.loads(path.read_text())
    del done["files"]
    path.write_text(json.dumps(done))
    assert run_stage(write("a"), tmp_path).skipped
    (first.folder / "result").write_text("spoilt")
    assert not run_stage(write("a"), tmp_path).skipped


def test_an_input_of_which_an_older_run_knew_nothing_does_not_undo_what_it_made(tmp_path: Path) -> None:
    run_stage(write("a"), tmp_path)
    newer = replace(write("a"), inputs={**write("a").inputs, "not told before": 1})
    assert run_stage(newer, tmp_path).skipped
    again = run_stage(replace(newer, inputs={**newer.inputs, "text": "b"}), tmp_path)
    assert not again.skipped
    assert not run_stage(replace(newer, inputs={"text": "b", "not told before": 2}), tmp_path).skipped


def two_parts(late: int, early: int = 0) -> Stage:
    """A stage whose folder `first` does not depend on `late`."""

    def work(folder: Path) -> None:
        (folder / "first").mkdir(exist_ok=True)
        with (folder / "first" / "made").open("a") as file:
            file.write("once")
        (folder / "second").write_text(str(late))

    return Stage("stage", {"plan": {"late": late, "early": early}}, work, {"first": {"late"}})


def test_a_part_that_does_not_depend_on_what_changed_is_kept(tmp_path: Path) -> None:
    run_stage(two_parts(1), tmp_path)
    result = run_stage(two_parts(2), tmp_path)
    assert (result.folder / "first" / "made").read_text() == "onceonce"
    result = run_stage(two_parts(2, early=1), tmp_path)
    assert (result.folder / "first" / "made").read_text() == "once"


def test_a_folder_is_taken_by_its_mark_or_by_what_was_begun_before_there_was_one(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    assert not is_taken(tmp_path)
    take(tmp_path)
    assert is_taken(tmp_path)
    run_stage(write("a"), tmp_path / "older")
    assert is_taken(tmp_path / "older")
