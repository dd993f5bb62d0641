"""JSON of the pages: requests are sent to the demo server, answers have the parts of its answers, rows are read."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from rheostat_training.scorers.labelled import read_preferences, read_refusals
from tests.docs.blocks import HOST, Block, blocks_of, every_block

PATHS: Final = {
    frozenset({"messages", "response"}): "/v1/control/score",
    frozenset({"messages", "sweep"}): "/v1/control/sweep",
    frozenset({"messages", "model"}): "/v1/control/plan",
}
"""Where a body with these keys goes, the first that fits. Chat bodies are planned: no answer is shown to them here."""
CURL: Final = re.compile(rf"^curl {HOST}(\S+) .*? -d '(.*?)'$", re.DOTALL | re.MULTILINE)
LEFT_OUT: Final = "{…}"
BLOCKS: Final = [block for block in every_block("json") if block.is_run]
ANSWERS: Final = [block for block in BLOCKS if "answer" in block.said]
ROWS: Final = [block for block in BLOCKS if re.match(r'\{"(prompt|chosen)"', block.text)]
REQUESTS: Final = [block for block in BLOCKS if block not in ANSWERS + ROWS]


def request_of(block: Block) -> tuple[str, Any]:
    """Its path and body."""
    if block.language != "json":
        [(path, body)] = CURL.findall(block.text)
        return path, json.loads(body)
    body = json.loads(block.text)
    paths = [path for keys, path in PATHS.items() if keys <= {*body}]
    assert paths, f"{block}: no route takes {[*body]}; known bodies: {[sorted(keys) for keys in PATHS]}"
    return paths[0], body


def request_before(answer: Block) -> Block:
    blocks = [block for block in blocks_of(answer.page) if block.line < answer.line]
    return [block for block in blocks if block in REQUESTS or CURL.search(block.text)][-1]


@pytest.mark.parametrize("block", REQUESTS, ids=str)
def test_a_request_is_taken(block: Block, demo_url: str) -> None:
    path, body = request_of(block)
    response = httpx.post(f"{demo_url}{path}", json=body, timeout=120)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("block", ANSWERS, ids=str)
def test_an_answer_has_no_part_that_a_real_one_has_not(block: Block, demo_url: str) -> None:
    path, body = request_of(request_before(block))
    real = httpx.post(f"{demo_url}{path}", json=body, timeout=120).raise_for_status().json()
    shown = json.loads(block.text.replace(LEFT_OUT, "{}"))
    assert parts(shown) - parts(real) == set()


def parts(value: Any, place: str = "") -> set[str]:
    """The places of all parts, whatever their number in a list."""
    if isinstance(value, Mapping):
        return {place}.union(*(parts(part, f"{place}.{name}") for name, part in value.items()))
    return {place}.union(*(parts(part, place) for part in value)) if isinstance(value, list) else {place}


@pytest.mark.parametrize("block", ROWS, ids=str)
def test_rows_are_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(block.text)
    assert (read_refusals if '"completion"' in block.text else read_preferences)([path])
