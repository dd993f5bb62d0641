"""A whole run in miniature: what it leaves, what it skips, and that kills and crowds do not change the result."""

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from typer.testing import CliRunner

from rheostat_server import demo
from rheostat_server.adapters import load_adapter
from rheostat_server.contract.calibration import DialCalibration
from rheostat_server.contract.dials import DialName
from rheostat_server.contract.digest import base_model_digest
from rheostat_server.contract.wordings import Wordings
from rheostat_training import cli
from rheostat_training.calibrate import NothingToCalibrate, measure_curves
from rheostat_training.config import BadConfig, RunConfig, read_config
from rheostat_training.materials import Materials
from rheostat_training.models import load_base
from rheostat_training.progress import Progress
from rheostat_training.rows import Sample, read_rows
from rheostat_training.run import run
from rheostat_training.stage_names import STAGES
from rheostat_training.work_folder import Busy
from tests.training.killed import begin, kill_when
from tests.training.launched import launched

CONFIG = Path(__file__).parent / "miniature.yaml"

pytestmark = pytest.mark.slow


def make(out: Path, config: RunConfig | None = None) -> list[str]:
    said: list[str] = []
    run(config or read_config(CONFIG), out, progress=Progress.silent(), say=said.append)
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run") / "whole"
    make(out)
    return out


def test_a_run_leaves_an_adapter_that_the_server_takes_its_figures_and_its_report(whole: Path) -> None:
    adapter = load_adapter(whole / "adapter", base_digest=base_model_digest(demo.base_folder()))
    assert adapter.manifest.training.method == "moec+exmate"
    assert set(adapter.manifest.calibration or {}) == {"adapter", "prompt"}
    figures = json.loads((whole / "evaluation.json").read_text())
    assert figures["adapter"] == adapter.id
    assert set(figures["modes"]) == {"adapter", "prompt", "off", "rerank-2"}
    assert figures["judges"] == {"scorers": "training", "judges": "held-out", "oracle": "oracle"}
    for mode, levels in (("adapter", 3), ("prompt", 5)):
        calibration = figures["calibration"][mode]
        assert calibration["answers"] == 2 * (4 * levels + 4 * 2)
        assert calibration["unjudged"] == unjudged(whole / "calibrate" / mode)
    assert adapter.id in (whole / "report.html").read_text()
    assert "library_name: peft" in (whole / "adapter" / "README.md").read_text()


def unjudged(asked: Path) -> int:
    """How many of the answers below a folder have nothing in them, which alone the scorers cannot judge."""
    return sum(not row.answer.strip() for file in asked.rglob("samples.jsonl") for row in read_rows(file, Sample))


def test_every_stage_tells_what_it_depended_on_and_what_it_made(whole: Path) -> None:
    for name in STAGES:
        done = json.loads((whole / "stages" / name / "done.json").read_text())
        assert done["inputs"]["plan"]
        assert done["outputs"].startswith("sha256:")
    assert read_config(whole / "config.yaml") == read_config(CONFIG)


def test_a_second_run_does_nothing_again(whole: Path) -> None:
    assert [line for line in make(whole) if line.split(":")[0] in STAGES and "unchanged" not in line] == []


def test_a_second_run_loads_no_model(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    for kind in (AutoModelForCausalLM, AutoModelForSequenceClassification):
        monkeypatch.setattr(kind, "from_pretrained", lambda folder, **_: loaded.append(str(folder)))
    make(whole)
    assert loaded == []


def test_a_changed_setting_runs_its_stage_and_those_after_it(whole: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(whole), str(tmp_path / "copy")], check=True)
    said = make(tmp_path / "copy", read_config(CONFIG, ["fit.steps=7"]))
    unchanged = {line.split(":")[0] for line in said if "unchanged" in line}
    assert unchanged == {"generate", "score", "distil"}
    before, after = (json.loads((out / "evaluation.json").read_text()) for out in (whole, tmp_path / "copy"))
    assert before["adapter"] != after["adapter"]


def test_rlhf_goes_on_from_the_fit_that_is_there(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(whole), str(out)], check=True)
    report = (out / "fit" / "fit" / "report.json").read_bytes()
    begun: list[bytes] = []

    def reinforced(base: object, adapter: Path, *_: object, **__: object) -> None:
        begun.append((adapter.parent / "report.json").read_bytes())
        raise ValueError("so far")

    monkeypatch.setattr("rheostat_training.run.reinforce", reinforced)
    for steps in (1, 2):
        with pytest.raises(ValueError, match="so far"):
            make(out, read_config(CONFIG, [f"reinforce={{steps: {steps}}}"]))
    assert begun == [report, report]


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", "tokenizer_config.json"])
def test_another_way_to_ask_the_base_makes_the_stages_anew(tmp_path: Path, name: str) -> None:
    base, said = tmp_path / "base", list[str]()
    shutil.copytree(demo.base_folder(), base)
    config = read_config(CONFIG, [f"base.model={base}", "generate.worded=0", "generate.sampling.max_new_tokens=2"])
    for _ in range(2):
        run(config, tmp_path / "run", until="generate", progress=Progress.silent(), say=said.append)
        (base / name).write_text((base / name).read_text() + "\n")
    made = [line.split(" (")[0] for line in said if line.startswith("generate:")]
    assert len(made) == 2
    assert not any("unchanged" in line for line in made)


def test_merged_weights_are_there_where_they_are_asked_for_and_go_with_the_wish(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(whole), str(out)], check=True)
    make(out, read_config(CONFIG, ["export.merge=true"]))
    assert load_base(out / "merged").tokenizer.chat_template
    assert (out / "adapter" / "control.json").read_bytes() == (whole / "adapter" / "control.json").read_bytes()
    make(out)
    assert not (out / "merged").exists()


def test_a_judge_is_what_it_is_and_not_what_it_is_called(whole: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(whole), str(tmp_path / "copy")], check=True)
    make(tmp_path / "copy", read_config(CONFIG, ["evaluate.judges={mine: demo-scorers, truth: demo-oracle}"]))
    roles = json.loads((tmp_path / "copy" / "evaluation.json").read_text())["judges"]
    assert roles == {"scorers": "training", "mine": "training", "truth": "oracle"}


def test_a_mode_of_which_nothing_can_be_judged_goes_without_a_calibration(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_the_adapters(*given: Any, words: Wordings | None = None) -> dict[DialName, DialCalibration]:
        if words:
            raise NothingToCalibrate("safety: 0 of 12 answers could be judged")
        return measure_curves(*given, words=words)

    subprocess.run(["cp", "-r", str(whole), str(tmp_path / "copy")], check=True)
    monkeypatch.setattr("rheostat_training.run.measure_curves", only_the_adapters)
    said = make(tmp_path / "copy", read_config(CONFIG, ["calibrate.seed=1"]))
    assert "calibrate: mode prompt goes without: safety: 0 of 12 answers could be judged" in said
    manifest = json.loads((tmp_path / "copy" / "adapter" / "control.json").read_text())
    assert set(manifest["calibration"]) == {"adapter"}


def test_answers_of_which_none_came_to_its_end_are_told_before_anything_is_scored(tmp_path: Path) -> None:
    config = read_config(CONFIG, ["generate.sampling.max_new_tokens=2", "generate.worded=0"])
    with pytest.raises(ValueError, match=r"none of 48 answers came to its end within .* \(2\)"):
        run(config, tmp_path, until="distil", progress=Progress.silent(), say=lambda line: None)


def test_a_choice_that_keeps_no_answer_says_what_it_left_out(tmp_path: Path) -> None:
    config = read_config(CONFIG, ["distil.least_probability=0.99999", "generate.sampling.settling_tokens=0"])
    with pytest.raises(ValueError, match=r"kept no answer: \d+ could not be judged, [1-9]\d* were slips"):
        run(config, tmp_path, until="distil", progress=Progress.silent(), say=lambda line: None)


def test_bad_rows_are_told_by_their_lines(tmp_path: Path) -> None:
    rows = [*(f'{{"prompt": "question {number}"}}' for number in range(3)), '{"prompt": ""}', "broken"]
    (tmp_path / "own.jsonl").write_text("\n".join(rows))
    said: list[str] = []
    config = read_config(CONFIG, [f"prompts.source={{source: {tmp_path / 'own.jsonl'}}}"])
    assert len(Materials(config, say=said.append).training_prompts) == 3
    assert "  left out: own.jsonl, line 4: prompt is empty" in said
    assert any(line.startswith("  left out: own.jsonl, line 5: is not JSON") for line in said)


def test_one_stage_is_made_with_those_before_it_and_none_after(tmp_path: Path) -> None:
    done = run(read_config(CONFIG), tmp_path, until="distil", progress=Progress.silent(), say=lambda line: None)
    assert tuple(done) == ("generate", "score", "distil")
    assert not (tmp_path / "fit").exists()


KILLED_AT: list[Callable[[Path], bool]] = [
    lambda out: (out / "generate" / "plain" / "shards" / "00001.jsonl").exists(),
    lambda out: (out / "generate" / "worded" / "inputs.json").exists(),
    lambda out: (out / "stages" / "score" / "begun.json").exists(),
    lambda out: (out / "stages" / "distil" / "begun.json").exists(),
    lambda out: any((out / "fit" / "fit").glob("checkpoint*")),
    lambda out: (out / "evaluate" / "prompt" / "inputs.json").exists(),
    lambda out: (out / "calibrate" / "adapter" / "helpfulness" / "inputs.json").exists(),
    lambda out: (out / "stages" / "export" / "begun.json").exists(),
]


@pytest.mark.timeout(600)
def test_a_run_killed_at_every_stage_ends_as_one_that_was_not(
    processes: ForkServerContext, whole: Path, tmp_path: Path
) -> None:
    for seen in KILLED_AT:
        kill_when(begin(processes, make_alone, tmp_path), partial(seen, tmp_path), within_s=120)
    said = make(tmp_path)
    assert any(line.startswith("generate: unchanged") for line in said)
    for name in (
        "generate/samples.jsonl", "score/scored.jsonl", "distil/examples.jsonl",
        "fit/adapter/adapter_model.safetensors",
        "evaluate/figures.json", "calibrate/calibration.json", "adapter/control.json", "evaluation.json",
    ):  # fmt: skip
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name


def make_alone(out: Path) -> None:
    """In a process of its own."""
    torch.set_num_threads(1)
    make(out)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(Busy, match="another run is at work"):
        make(tmp_path)


def test_too_few_prompts_held_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"held_out gives 8 prompts; evaluate\.prompts \(6\) and .* \(4\) need"):
        make(tmp_path, read_config(CONFIG, ["evaluate.prompts=6"]))


def test_the_command_line_tells_errors_in_one_go_and_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("fitt: {}\nseed: x\n")
    result = CliRunner().invoke(cli.app, ["run", str(bad), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "did you mean 'fit'?" in result.output
    assert "seed is 'x'" in result.output
    assert not (tmp_path / "out").exists()


def test_the_resolved_configuration_is_shown(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["config", str(CONFIG), "--set", "fit.rank=2"])
    assert result.exit_code == 0
    assert "rank: 2" in result.output


def test_two_processes_of_one_launch_make_the_run_of_one(whole: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    said = launched("rheostat", "train", "fit", CONFIG, "--out", made, log=tmp_path / "log")
    assert said.count("fit: done in") == 1
    samples = "generate/samples.jsonl"
    assert (made / samples).read_bytes() == (whole / samples).read_bytes()
    one, two = (load_file(out / "fit/adapter/adapter_model.safetensors") for out in (whole, made))
    assert one.keys() == two.keys()
    for name, wanted in one.items():
        # Adam makes a whole step of a gradient that is all rounding, so that single entries may differ on some CPUs.
        assert (two[name] - wanted).norm() <= 0.01 * wanted.norm(), name
