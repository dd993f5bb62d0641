"""The demo's commands answer a user's mistake in a line, and replace nothing that is not theirs."""

from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from rheostat_server.demo import bundle_folder
from rheostat_training.demo.bundle import NoBundle, check_out
from rheostat_training.demo.cli import app


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    return result.stderr


def kept(folder: Path) -> Path:
    """A folder with something of the user's in it."""
    folder.mkdir(parents=True)
    (folder / "mine").write_text("mine")
    return folder / "mine"


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named() -> None:
    told = refused("evaluate", "--url", "http://127.0.0.1:9", "--prompts", "2")
    assert "http://127.0.0.1:9 did not answer: " in told


def test_a_mode_that_is_a_server_s_alone_needs_one() -> None:
    told = refused("evaluate", "--prompts", "2", "--mode", "rerank")
    assert "mode is 'rerank'; without a server's url it must be one of adapter, prompt, off" in told


def test_more_prompts_than_there_are_and_a_folder_that_is_no_bundle_are_told_without_a_trace(tmp_path: Path) -> None:
    assert "ask for 0 to 2380" in refused("evaluate", "--prompts", "5000")
    assert f"{tmp_path} is no bundle: it has no base, adapter" in refused("evaluate", "--bundle", tmp_path)


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("out", "is there and is no bundle"),
        (".", "holds --work"),
        ("work", "holds --work"),
        ("work/base/new", "lies in base, a stage of --work"),
    ],
)
def test_a_bundle_replaces_nothing_but_a_bundle(tmp_path: Path, out: str, told: str) -> None:
    mine = kept(tmp_path / "out")
    assert told in refused("build", "--fast", "--out", tmp_path / out, "--work", tmp_path / "work")
    assert mine.read_text() == "mine"
    assert not (tmp_path / "work").exists()


def test_a_recipe_alone_makes_no_bundle_and_a_bundle_or_nothing_may_be_replaced(tmp_path: Path) -> None:
    kept(tmp_path / "out").rename(tmp_path / "out" / "recipe.json")
    with pytest.raises(NoBundle):
        check_out(tmp_path / "out", tmp_path / "work", ())
    (tmp_path / "empty").mkdir()
    for free in (bundle_folder(), tmp_path / "empty", tmp_path / "new"):
        check_out(free, tmp_path / "work", ())


@pytest.mark.parametrize("name", ["tokenizer", "base", "judges", "selector", "run"])
def test_what_no_build_has_made_is_never_replaced(tmp_path: Path, name: str) -> None:
    mine = kept(tmp_path / name)
    told = refused("build", "--fast", "--out", tmp_path / "out", "--work", tmp_path)
    assert f"holds {name}, which no build has made" in told
    assert "give another --work" in told
    assert mine.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {name, ".lock"}


def test_two_builds_in_one_folder_are_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"):
        told = refused("build", "--fast", "--out", tmp_path / "out", "--work", tmp_path)
    assert "another build is at work in this folder" in told
