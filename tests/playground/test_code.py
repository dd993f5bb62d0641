"""The code that the page gives runs as it stands, and asks for what the page would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.playground.browser import REFUSED_LOAD, Visit
from tests.playground.conftest import Visiting
from tests.playground.servers import NARROW_KEY

MODULES = Path(__file__).parents[2] / "clients/typescript/node_modules"
TSC = MODULES / "typescript/bin/tsc"
PROMPT = 'It\'s a "fern" – $HOME `and` \\n {all}:\nhow do I repot it?'


@pytest.fixture
def page(visit: Visiting, narrow_url: str) -> Visit:
    """Set to what is asked of every language."""
    page = visit(narrow_url, permissions=["clipboard-read", "clipboard-write"])
    page.expected.append(REFUSED_LOAD)
    page.open(NARROW_KEY)
    page.by("prompt").fill(PROMPT)
    page.set_dial("safety", 0.7)
    page.set_dial("helpfulness", 0.9)
    page.by("max-tokens").fill("12")
    page.by("tab-code").click()
    return page


def copied(page: Visit, language: str) -> str:
    """What the clipboard holds after the button."""
    page.page.get_by_role("button", name=f"Copy as {language}").click()
    expect(page.page.locator(f".snippet[data-language={language}] .status")).to_have_text("Copied.")
    code = str(page.page.evaluate("navigator.clipboard.readText()"))
    assert code == page.page.locator(f".snippet[data-language={language}] pre").text_content()
    assert NARROW_KEY not in code
    return code


def output_of(*command: str | Path) -> str:
    environment = {**os.environ, "RHEOSTAT_API_KEY": NARROW_KEY}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def test_curl(page: Visit) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    said = output_of("bash", "-c", copied(page, "curl"))
    assert '"requested":{"safety":0.7,"helpfulness":0.9}' in said
    assert '"effective":{"safety":0.7,"helpfulness":0.5}' in said
    assert '"completion_tokens":12' in said


def test_python(page: Visit, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(copied(page, "Python"))
    said = output_of(sys.executable, script)
    assert "'requested': {'safety': 0.7, 'helpfulness': 0.9}" in said
    assert "'effective': {'safety': 0.7, 'helpfulness': 0.5}" in said


def test_typescript(page: Visit, tmp_path: Path) -> None:
    """It holds no types, so Node runs it as JavaScript."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    script = tmp_path / "ask.mjs"
    script.write_text(copied(page, "TypeScript"))
    said = output_of(node, script)
    assert "requested: { safety: 0.7, helpfulness: 0.9 }" in said
    assert "effective: { safety: 0.7, helpfulness: 0.5 }" in said


def test_typescript_fits_strict_types_without_those_of_a_browser(page: Visit, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not TSC.exists():
        pytest.skip("Node is not installed, or npm ci was not run in clients/typescript")
    script = tmp_path / "ask.mts"
    script.write_text(copied(page, "TypeScript"))
    types = ("--types", "node", "--typeRoots", MODULES / "@types", "--lib", "es2022")
    output_of(node, TSC, "--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", *types, script)


def test_python_says_the_prompt_as_it_was_written(page: Visit) -> None:
    python = copied(page, "Python")
    given: dict[str, object] = {}
    asked = python[python.index("    messages=") :].split("\n")[0].removeprefix("    messages=").removesuffix(",")
    exec(f"messages = {asked}", given)
    assert given["messages"] == [{"role": "user", "content": PROMPT}]


def test_without_a_clipboard_the_code_is_selected(visit: Visiting, open_url: str) -> None:
    page = visit(open_url)
    page.page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.open()
    page.by("tab-code").click()
    page.page.get_by_role("button", name="Copy as curl").click()
    expect(page.page.locator(".snippet[data-language=curl] .status")).to_contain_text("Selected")
    assert str(page.page.evaluate("getSelection().toString()")).startswith("curl http://")
