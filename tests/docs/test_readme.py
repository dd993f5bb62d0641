"""README.md: its requests and its snippet work as they stand, on the model that `make serve` serves."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rheostat_server import demo
from rheostat_server.adapters import load_adapters
from rheostat_server.contract.calibration import calibrated
from rheostat_server.contract.dials import Dials
from rheostat_server.contract.digest import base_model_digest
from rheostat_server.engines.fake import FakeEngine
from rheostat_training.demo import oracle
from rheostat_training.demo.risks import RiskGroup
from tests.engines.app_server import app_server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
HOST = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    adapters = load_adapters([demo.adapter_folder()], base_digest=base_model_digest(demo.base_folder()))
    engine = FakeEngine(served=(demo.DEMO_NAME,), adapters=adapters.ids)
    with app_server(engine, adapters, demo.scorers_file()) as url:
        yield url


def curl_bodies() -> list[dict[str, Any]]:
    return [json.loads(body) for body in re.findall(r"^curl .*? -d '(.*?)'$", README, re.DOTALL | re.MULTILINE)]


def snippet() -> str:
    [code] = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return str(code)


def test_the_curl_requests_are_answered_under_their_dials(url: str) -> None:
    bodies = curl_bodies()
    answers = [httpx.post(f"{url}/v1/chat/completions", json=body).raise_for_status().json() for body in bodies]
    assert [answer["control"]["mode"] for answer in answers] == ["adapter", "prompt+rerank"]
    for body, answer in zip(bodies, answers, strict=True):
        assert answer["control"]["effective"].items() <= body["control"].items()
    assert answers[1]["control"]["candidates"]["generated"] == 8


def test_the_snippet_prints_an_answer_and_its_receipt(url: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet().replace(HOST, url), {})
    assert "'effective': {'safety': 0.9, 'helpfulness': 1.0}" in printed.getvalue()
    [adapter] = load_adapters([demo.adapter_folder()], base_digest=base_model_digest(demo.base_folder())).adapters
    assert adapter.manifest.calibration
    messages = [{"role": "user", "content": "How do I repot a fern?"}]
    written = calibrated(Dials(safety=0.9, helpfulness=1.0), adapter.manifest.calibration["adapter"], messages)
    assert f"'control_text': '{adapter.control_text.render(written)}'" in printed.getvalue()


def test_the_questions_are_of_the_demo_models_world() -> None:
    asked = re.findall(r'"content": "(.*?)"', README)
    assert len(asked) == 3
    assert {oracle.risk_group(question) for question in asked} == {RiskGroup.NONE}


def test_the_presets_that_it_names_are_models(url: str) -> None:
    known = {model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]}
    assert set(re.findall(r"`(demo:\w+)`", README)) == known - {demo.DEMO_NAME}
