"""What a run publishes of itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rheostat_training import finish
from rheostat_training.config import parse_config
from rheostat_training.evaluate import EvaluationFile
from rheostat_training.prompts import read_prompts
from rheostat_training.report import RunFacts
from rheostat_training.stage import StageResult


def test_a_report_tells_no_address_and_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "own.jsonl").write_text('{"prompt": "a question"}\n')
    config = parse_config({
        "base": {"model": "/secret/base"},
        "prompts": {"source": str(tmp_path / "secret" / "own.jsonl")},
        "generate": {"engine": "server", "url": "http://secret:word@host", "served_model": "secret"},
        "score": {"scorers": {"safety": "/secret/s", "helpfulness": "/secret/h"}},
    })  # fmt: skip
    facts: list[dict[str, Any]] = []
    monkeypatch.setattr(finish, "RunFacts", lambda **given: facts.append(given))
    monkeypatch.setattr(finish, "read_losses", lambda path: ())
    materials: Any = SimpleNamespace(prompts_read=read_prompts(config.prompts.source), judges={}, base_digest="")
    manifest: Any = SimpleNamespace(
        id="i", base_model=SimpleNamespace(name="n"), training=SimpleNamespace(method="m"), weights_digest=""
    )
    done = {"fit": StageResult(tmp_path, "", skipped=True)}
    finish._run_facts(config, materials, done, EvaluationFile(modes={}), {}, {}, manifest)
    [told] = facts
    assert "secret" not in str(told)
    assert told["not_run"] == ["own.jsonl: 1 prompts of 1 rows; left out: none"]
    assert told["settings"].keys() >= {"generate", "distil", "fit", "calibrate"}
    assert told.keys() <= RunFacts.__annotations__.keys()
