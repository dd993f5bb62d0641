"""Every block of every page is run or says why not; Python and commands are run against the demo server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import promql_parser
import pytest

from tests.docs.blocks import HOST, PAGES, Block, blocks_of, every_block, run_by
from tests.docs.page_runner import RUN
from tools.processes import BIN, ROOT

CHECKED: Final = ("json", "yaml", "promql")
"""Languages of blocks that are read by what would read them."""
NO_CODE: Final = "text"
"""The language of what is printed, and of drawings."""
RUN_WITHIN_S: Final = 240
CURLRC: Final = "fail-with-body\nsilent\nshow-error\nmax-time = 120\n"
"""An answer that is an error fails the command."""


def runs(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.is_run and block.language in RUN]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_checked_or_says_why_not(page: Path) -> None:
    blocks = blocks_of(page)
    known = {*RUN, *CHECKED, NO_CODE}
    assert [f"{block} is {block.language!r}" for block in blocks if block.is_run and block.language not in known] == []
    assert [str(block) for block in blocks if not block.said.get("not run", "a reason")] == []


def test_the_tests_that_run_a_page_of_their_own_name_it() -> None:
    tests = {page.name: run_by(page) for page in PAGES}
    assert [name for name, test in tests.items() if test and name not in (ROOT / test).read_text()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=lambda page: page.name)
def test_the_python_and_the_commands_of_a_page_run(page: Path, demo_url: str, curl: str, tmp_path: Path) -> None:
    for block in blocks_of(page):
        if "file" in block.said:
            (tmp_path / block.said["file"]).write_text(block.text)
    (tmp_path / ".curlrc").write_text(CURLRC)
    steps = [
        {"page": page.name, "line": block.line, "language": block.language, "text": block.text.replace(HOST, demo_url)}
        for block in runs(page)
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.page_runner"],
        input=json.dumps(steps),
        env={**os.environ, **places(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def places(folder: Path) -> dict[str, str]:
    """Where a page's programs find ours, and curl its settings."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return {"PYTHONPATH": path, "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]), "CURL_HOME": str(folder)}


@pytest.mark.parametrize("block", every_block("promql"), ids=str)
def test_a_query_is_one(block: Block) -> None:
    assert promql_parser.parse(block.text)
