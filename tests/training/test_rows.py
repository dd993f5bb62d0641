"""Rows on disk, folders that belong to one run, and progress without a terminal."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest

from rheostat_server.contract.dials import Dials
from rheostat_training import progress
from rheostat_training.progress import Progress
from rheostat_training.resume import AnotherRun, claim
from rheostat_training.rows import BadRow, Example, Prompt, Sample, by_id, read_rows, write_rows

ROWS = [
    Sample("p", 0, "an answer\nof two lines", 5, True, Dials(safety=0.5, helpfulness=1.0)),
    Sample("p", 1, "für dich", 2, False),
]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    assert list(read_rows(write_rows(tmp_path / "rows.jsonl", ROWS), Sample)) == ROWS
    prompt = Prompt.user("p", "question")
    assert list(read_rows(write_rows(tmp_path / "prompts.jsonl", [prompt]), Prompt)) == [prompt]


def test_a_bad_row_is_reported_by_file_and_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(BadRow, match=r"rows\.jsonl, line 3 is not a Sample"):
        list(read_rows(path, Sample))


def test_dials_out_of_range_are_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = '{"prompt_id":"p","answer":"a","dials":{"safety":2,"helpfulness":0},"safety":1,"helpfulness":0}\n'
    path.write_text(row)
    with pytest.raises(BadRow, match="safety is 2"):
        list(read_rows(path, Example))


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_rows(path, (ROWS[1 // (1 - number)] for number in range(2)))
    assert path.read_bytes() == before


def test_two_prompts_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="'p' is used twice"):
        by_id([Prompt.user("p", "one"), Prompt.user("p", "other")])


def test_the_text_of_a_prompt_is_its_last_user_message() -> None:
    turns = [("user", "first"), ("assistant", "reply"), ("user", "second")]
    prompt = Prompt("p", tuple({"role": role, "content": content} for role, content in turns))
    assert prompt.text == "second"


def test_a_folder_begun_with_other_inputs_is_refused_by_what_differs(tmp_path: Path) -> None:
    claim(tmp_path, {"seed": 1, "steps": 5})
    claim(tmp_path, {"steps": 5, "seed": 1})
    with pytest.raises(AnotherRun, match="begun with seed = 1, now it is 2"):
        claim(tmp_path, {"seed": 2, "steps": 5})


def test_progress_without_a_terminal_is_plain_lines_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    with Progress.auto().task("generate", 4, unit="answers") as task:
        time.sleep(0.01)
        task.advance(2, note="loss 1")
        task.advance(2)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("generate: 2/4 answers, ")
    assert "s left, loss 1" in first
    assert last.startswith("generate: 4/4 answers, ")


@pytest.mark.parametrize("open_task", [progress._lines, progress._bar])
def test_what_an_earlier_run_has_done_does_not_make_this_one_look_fast(
    open_task: Callable[[str, int, str], AbstractContextManager[progress.Task]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    clock = iter((0.0, 1.0))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock.__next__))
    with open_task("fit", 1000, "steps") as task:
        task.skip(900)
        task.advance(1)
    shown = capsys.readouterr().err
    assert "901/1000" in shown
    assert "99 s left" in shown
    assert "1.0" in shown
    assert "901.0" not in shown


def test_silent_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress.silent().task("generate", 1) as task:
        task.advance()
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_rate_and_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(progress._bar).task("fit", 2, unit="steps") as task:
        task.advance(2, note="loss 0.5")
    shown = capsys.readouterr().err
    assert "fit" in shown
    assert "2/2" in shown
