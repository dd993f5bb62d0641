"""docs/reranking.md: its file, request and snippet work; it tells every field, part and setting."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from rheostat_server import demo
from rheostat_server.adapters import AdapterStore
from rheostat_server.api.control_block import ControlBlock
from rheostat_server.contract.dials import Dials
from rheostat_server.engines.fake import FakeEngine
from rheostat_server.modes.reranking import DRAWN_BY, Check, RerankPlan, Schedule
from rheostat_server.plan import ControlPlan
from rheostat_server.policy import InForce
from rheostat_server.receipt import Stopwatch, make_receipt
from rheostat_server.reranking.facts import Facts
from rheostat_server.reranking.selection import Choice
from rheostat_server.scorers import Scores
from rheostat_server.scorers.spec import CheckSpec, ScorersFile
from rheostat_server.serve import schedule_of
from rheostat_server.settings import Settings
from tests.engines.app_server import app_server

PAGE: Final = (Path(__file__).parents[2] / "docs" / "reranking.md").read_text()
HOST: Final = "http://127.0.0.1:8000"
DIALS: Final = Dials(safety=0.5, helpfulness=0.5)
SETTINGS: Final = {
    "SCORERS", "CANDIDATES", "LEAST_CANDIDATES", "MAX_CANDIDATES", "FOLLOW_LOAD", "RERANK_ROOM", "CHOOSE_AFTER",
    "SAFETY_FLOOR", "REFUSAL", "UPSTREAM_SEQUENCES",
}  # fmt: skip
"""Those of reranking."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with app_server(FakeEngine(served=(demo.DEMO_NAME,)), AdapterStore(), demo.scorers_file()) as url:
        yield url


def blocks(language: str) -> list[str]:
    return [str(block) for block in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]


def section(title: str) -> str:
    [found] = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def receipt() -> dict[str, Any]:
    """One with every part that a reranked answer may have."""
    choice = Choice(0, Scores(0.5, 0.5), left={"safety": 0.0, "helpfulness": 0.0})
    rerank = RerankPlan([], DIALS, ["judge"], wanted=8, floor=0.1, schedule=Schedule((Check(12, 1),)))
    plan = ControlPlan("rerank", body={}, effective=DIALS, rerank=rerank)
    facts = Facts(wanted=8, generated=4, why="the engine is full", choice=choice, chosen_at=12)
    return make_receipt(InForce(DIALS.as_dict(), DIALS, (), "rerank"), plan, Stopwatch(), facts)


def test_every_file_of_scorers_is_one() -> None:
    files = [
        ScorersFile.model_validate(found) for block in blocks("yaml") if "scorers" in (found := yaml.safe_load(block))
    ]
    assert [len(schedule_of(file).checks) for file in files] == [3]
    assert all(f"| `{name}` |" in PAGE for name in CheckSpec.model_fields)


def test_the_request_is_answered_by_the_best_of_several_with_the_parts_that_it_shows(url: str) -> None:
    [body] = re.findall(r"^curl .*? -d '(.*?)'$", PAGE, re.DOTALL | re.MULTILINE)
    answer = httpx.post(f"{url}/v1/chat/completions", json=json.loads(body)).raise_for_status().json()
    [shown] = [json.loads(block) for block in blocks("json")]
    assert answer["control"]["mode"] == json.loads(body)["control"]["mode"]
    assert {*answer["control"]} <= {*shown["control"]} <= {*answer["control"], "control_values", "scores"}
    assert {*shown["control"]["candidates"]} == {*answer["control"]["candidates"]}
    assert shown["control"]["early_stop"] == answer["control"]["early_stop"]


def test_the_snippet_prints_an_answer_its_candidates_and_its_scores(url: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(blocks("python")[0].replace(HOST, url), {})
    assert "{'wanted': 16, 'generated': 16," in printed.getvalue()


def test_every_field_of_control_and_every_mode_is_told() -> None:
    fields = section("What a request may say")
    assert [name for name in (*ControlBlock.model_fields, *DRAWN_BY) if f"`{name}`" not in fields] == []


def test_every_part_of_a_reranked_receipt_is_told() -> None:
    found = receipt()
    parts = {f"{part}.{name}" for part in ("candidates", "choice") for name in found[part]}
    parts |= {"early_stop", "safety_floor", "scorers", "scores", "timing_ms.scorers"}
    assert {*found} == {part.split(".")[0] for part in parts} | {"requested", "effective", "clamped", "mode"}
    assert {part for part in parts if f"| `{part}` |" not in section("The receipt")} == set()


def test_every_setting_is_told_and_where_its_default_is_too_it_is_that_of_the_code() -> None:
    known = {name.upper() for name in Settings.model_fields}
    assert known >= set(re.findall(r"`RHEOSTAT_(\w+)`", PAGE)) >= SETTINGS
    for name, default in re.findall(r"`RHEOSTAT_(\w+)`, (\d+)", PAGE):
        assert Settings.model_fields[name.lower()].default == int(default)
