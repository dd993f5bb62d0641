"""Starting a server: which engine goes with what is asked for, and what is said where it cannot be had."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from starlette.testclient import TestClient

from rheostat_server import packages, serve
from rheostat_server.adapters import AdapterRefused, AdapterStore
from rheostat_server.blending.store import BlendStore
from rheostat_server.contract.manifest import Manifest
from rheostat_server.draining_server import DrainingServer
from rheostat_server.engines.fake import FakeEngine
from rheostat_server.errors import CannotStart
from rheostat_server.scorers.spec import ScorersFile
from rheostat_server.scorers.spec.common import ScorersError
from rheostat_server.settings import Settings
from tests.engines.app_server import app_server
from tests.server.recording import RecordingEngine
from tests.server.test_adapters import make_folder


@pytest.mark.parametrize(
    ("given", "engine"),
    [
        ({}, "embedded"),
        ({"model": "some/model"}, "vllm"),
        ({"upstream": "http://127.0.0.1:1"}, "remote"),
        ({"upstream": "http://127.0.0.1:1", "model": "some/model"}, "remote"),
        ({"engine": "vllm"}, "vllm"),
        ({"engine": "embedded", "model": "some/model"}, "embedded"),
    ],
)
def test_the_engine_goes_with_what_is_named(given: dict[str, Any], engine: str) -> None:
    assert serve.engine_for(Settings(**given)) == engine


@pytest.mark.parametrize(("engine", "module"), [("embedded", "torch"), ("vllm", "vllm")])
def test_an_engine_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, engine: Any, module: str
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == module else find_spec(name))
    with pytest.raises(CannotStart, match=rf"pip install '\.\[{engine}\]'"):
        serve.start(Settings(engine=engine), engine_flags=[])


@pytest.mark.parametrize("name", ["tokenizer.json", "pytorch_model.bin"])
def test_a_base_model_without_safetensors_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(CannotStart, match=r"holds no \*\.safetensors"):
        serve.start(Settings(engine="embedded", model=str(tmp_path)), engine_flags=[])


@pytest.mark.parametrize("engine", ["embedded", "vllm"])
def test_an_upstream_is_refused_where_nothing_would_ask_it(engine: Any) -> None:
    with pytest.raises(CannotStart, match="goes with remote"):
        serve.start(Settings(engine=engine, upstream="http://127.0.0.1:1"), engine_flags=[])


def test_an_adapter_of_another_base_model_stops_the_start(tmp_path: Path, manifest: Manifest) -> None:
    folder = make_folder(tmp_path / "adapter", manifest)
    with pytest.raises(AdapterRefused, match="was made for the base model 'demo'"):
        serve.start(Settings(engine="embedded", adapters=[folder]), engine_flags=[])


def test_the_operators_wordings_and_defaults_reach_the_runtime(tmp_path: Path, engine: RecordingEngine) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"version": "own-3", "safety": list("abcde"), "helpfulness": list("vwxyz")}))
    settings = Settings(prompt_wordings=own, default_safety=0.2, default_helpfulness=0.4)
    runtime = serve.make_runtime(engine, AdapterStore(), settings, None)
    assert runtime.means.wordings.version == "own-3"
    assert {name: limits.default for name, limits in runtime.policy.envelope.ranges().items()} == {
        "safety": 0.2, "helpfulness": 0.4,
    }  # fmt: skip


def test_an_engine_is_closed_where_the_rest_of_the_server_cannot_start(tmp_path: Path) -> None:
    """Or files of blends would be left, and names at an upstream."""
    engine = FakeEngine()
    wrong = Settings(prompt_wordings=tmp_path / "none.yaml")
    with pytest.raises((CannotStart, OSError)):
        serve.run_app(engine, AdapterStore(), BlendStore(), wrong)
    assert engine.dead


def test_the_bundled_adapter_goes_with_the_demo_model_alone() -> None:
    assert [folder.name for folder in serve.adapter_folders(Settings())] == ["adapter"]
    assert serve.adapter_folders(Settings(model="some/model")) == []


UPSTREAM: dict[str, str | None] = {"embedded": None, "vllm": None, "remote": "http://127.0.0.1:1"}
ONE = "scorers: [{kind: classifier, model: m, dial: safety}]\n"
GUARD = "{kind: guard, model: m, format: llama-guard}"


@pytest.mark.parametrize("engine", UPSTREAM)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "the scorers' file .*none.yaml cannot be read"),
        ("scorers: []", r"scorers: List should have at least 1 item.*it is \[\]"),
        ("scorers: [{kind: classifier, model: m}]", "scorers.0: give dial, safety or helpfulness"),
        (
            f"{ONE}early_stop: [{{at: 0, keep: 1}}]",
            "early_stop: at is 0.0; it must be a whole number from 1 or a share",
        ),
        (f"{ONE}early_stop: [{{at: 9, keep: 1}}, {{at: 3, keep: 1}}]", "early_stop: checks at 9 and 3 must ascend"),
        (ONE, "scorers.yaml has no scorer that judges helpfulness; reranking needs one for each dial"),
        (f"scorers: [{GUARD}]", "no scorer that judges helpfulness"),
        ("scorers: [{kind: refusal, model: m}]", "no scorer that judges safety"),
        ("scorers: [{kind: preference, model: m, dial: safety}]", "no scorer that judges helpfulness"),
        ("scorers: [{kind: label_read, dials: [safety]}]", "no scorer that judges helpfulness"),
    ],
)
def test_a_scorers_file_that_does_not_fit_is_refused_before_an_engine_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any, text: str | None, told: str
) -> None:
    file = tmp_path / ("none.yaml" if text is None else "scorers.yaml")
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(serve, "STARTS", {engine: lambda *_: pytest.fail("the engine was started")})
    with pytest.raises(ScorersError, match=told):
        serve.start(Settings(engine=engine, upstream=UPSTREAM[engine], scorers=file), engine_flags=[])


@pytest.mark.parametrize("scorers", [f"[{GUARD}, {{kind: refusal, model: m}}]", "[{kind: label_read}]"])
def test_a_file_whose_scorers_judge_both_dials_starts_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scorers: str
) -> None:
    file = tmp_path / "scorers.yaml"
    file.write_text(f"scorers: {scorers}")
    started: list[Settings] = []
    monkeypatch.setattr(serve, "STARTS", {"vllm": lambda settings, _: started.append(settings)})
    serve.start(Settings(engine="vllm", scorers=file), engine_flags=[])
    assert [settings.scorers for settings in started] == [file]


@pytest.mark.parametrize("engine", UPSTREAM)
def test_the_command_says_what_is_wrong_with_a_scorers_file_and_ends(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "scorers.yaml"
    file.write_text("scorers: [{kind: oracle}]")
    upstream = [f"--upstream={UPSTREAM[engine]}"] if UPSTREAM[engine] else []
    command = [sys.executable, "-m", "rheostat", "serve", "--engine", engine, *upstream, "--scorers", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert f"the scorers' file {file} does not fit" in result.stderr
    assert "'oracle'" in result.stderr
    assert "Traceback" not in result.stderr


def test_in_front_of_an_upstream_without_scorers_there_is_no_reranking(monkeypatch: pytest.MonkeyPatch) -> None:
    apps: list[FastAPI] = []
    monkeypatch.setattr(DrainingServer, "run", lambda self: apps.append(self.config.app))
    with app_server(FakeEngine(("far",)), AdapterStore()) as upstream:
        serve.start(Settings(engine="remote", upstream=upstream), engine_flags=[])
        with TestClient(apps[0]) as http:
            body = {"model": "far", "messages": [{"role": "user", "content": "Hello"}]}
            answered = http.post("/v1/chat/completions", json=body)
            refused = http.post("/v1/chat/completions", json={**body, "control": {"mode": "rerank"}})
            scored = http.post("/v1/control/score", json={"messages": body["messages"], "response": "Good day."})
    assert answered.status_code == 200
    assert refused.status_code == 422
    assert "start it with --scorers" in refused.json()["error"]["message"]
    assert scored.status_code >= 400
    assert "--scorers" in scored.json()["error"]["message"]


def test_the_package_is_the_same_command() -> None:
    command = [sys.executable, "-m", "rheostat_server", "--engine", "remote"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "needs --upstream" in result.stderr


def test_a_setting_that_is_no_list_is_refused_in_one_line() -> None:
    environment = {**os.environ, "RHEOSTAT_ADAPTERS": "/models/control"}
    command = [sys.executable, "-m", "rheostat", "serve"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert result.returncode == 2
    assert '"adapters"' in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("early_stop", "checks"),
    [("plain", []), ("halving", [0.25, 0.5, 0.75]), ([{"at": 8, "keep": 2}], [8]), ([], [])],
)
def test_early_stop_is_a_schedule_s_name_or_its_checks(early_stop: Any, checks: list[float]) -> None:
    file = ScorersFile.model_validate({"scorers": [{"kind": "label_read"}], "early_stop": early_stop})
    assert [check.at for check in serve.schedule_of(file).checks] == checks


def test_checks_that_do_not_fit_are_refused() -> None:
    checks = [{"at": 16, "keep": 4}, {"at": 8, "keep": 2}]
    file = ScorersFile.model_validate({"scorers": [{"kind": "label_read"}], "early_stop": checks})
    with pytest.raises(CannotStart, match="early_stop: checks at 16 and 8 must ascend"):
        serve.schedule_of(file)
