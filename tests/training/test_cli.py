"""`rheostat train` at the hands of people: what it refuses, in one line and without a trace."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rheostat_training import cli
from rheostat_training.config import RunConfig

CONFIG = Path(__file__).parent / "miniature.yaml"


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def refused(result: Result) -> str:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize("stage", ["run", "generate", "export"])
def test_a_folder_that_cannot_be_made_is_told_without_a_trace(tmp_path: Path, stage: str) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "Not a directory" in refused(invoke(stage, CONFIG, "--out", tmp_path / "file" / "run"))


def test_a_study_that_cannot_write_is_told_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "study.yaml").write_text("run: {}\nmethods: {clm: {fit: {loss: clm}}}\n")
    assert "Not a directory" in refused(invoke("study", tmp_path / "study.yaml", "--out", tmp_path / "file" / "s"))


@pytest.mark.parametrize("name", ["config.yaml", "adapter", "score", "report.html"])
def test_what_no_run_has_made_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert f"holds {name}, which no run has made" in refused(invoke("generate", CONFIG, "--out", tmp_path))
    assert (tmp_path / name).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {name, ".lock"}


def test_a_folder_named_stages_does_not_make_a_folder_a_runs(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "generate").mkdir()
    (tmp_path / "generate" / "precious.txt").write_text("mine")
    assert "holds generate, which no run has made" in refused(invoke("generate", CONFIG, "--out", tmp_path))
    assert (tmp_path / "generate" / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("base.device=cuda", "torch sees no GPU"),
        ("base.model=empty", "holds no *.safetensors"),
        ("base.model=/nowhere/at/all", "is no folder"),
        ("generate={engine: server, url: 'http://127.0.0.1:9/v1', served_model: m}", "did not answer"),
    ],
)
def test_what_is_not_there_is_told_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Path("empty").mkdir()
    assert told in refused(invoke("generate", CONFIG, "--out", "out", "--set", setting))
    asked_at_all = setting.startswith("generate")
    assert Path("out/config.yaml").exists() == asked_at_all


@pytest.mark.parametrize(("words", "merged"), [(["--merge"], True), ([], False)])
def test_export_takes_merge_as_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], merged: bool
) -> None:
    seen: list[RunConfig] = []

    def run(config: RunConfig, *_: object, **__: object) -> dict[str, object]:
        """As in a process that is not the first of its launch, which exports nothing."""
        seen.append(config)
        return {}

    monkeypatch.setattr("rheostat_training.run.run", run)
    result = invoke("export", CONFIG, "--out", tmp_path, *words)
    assert (result.exit_code, result.output) == (0, "")
    assert [config.export.merge for config in seen] == [merged]


def test_every_command_says_what_it_does() -> None:
    for command in ("run", "generate", "score", "distil", "fit", "evaluate", "calibrate", "export", "study", "config"):
        result = invoke(command, "--help")
        assert result.exit_code == 0
        assert "CONFIG" in result.output
    assert invoke("exprt").exit_code == 2
