"""Servers, shared by the tests of this folder, and a browser for each of its modules.

Playwright's loop runs while its browser is open, and no test of another kind may run its own then.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.blends import TinyBlend
from tests.playground.servers import POLICY, ready, serving
from tests.playground.upstream import Script, scripted_upstream

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.playground.browser import Visit

Visiting = Callable[..., "Visit"]


@pytest.fixture(scope="package")
def demo_urls(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, str]]:
    """The demo as it is, and under a policy file with a narrow envelope; both start at once."""
    folder = tmp_path_factory.mktemp("playground")
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    with serving(folder, name="open") as free, serving(folder, "--policy", policy, name="narrow") as narrow:
        yield ready(folder, *free, name="open"), ready(folder, *narrow, name="narrow")


@pytest.fixture(scope="package")
def open_url(demo_urls: tuple[str, str]) -> str:
    return demo_urls[0]


@pytest.fixture(scope="package")
def narrow_url(demo_urls: tuple[str, str]) -> str:
    return demo_urls[1]


@pytest.fixture(scope="package")
def script() -> Generator[Script]:
    with scripted_upstream() as script:
        yield script


@pytest.fixture(scope="package")
def scripted_url(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A server without scorers over the scripted model."""
    folder = tmp_path_factory.mktemp("scripted")
    with serving(folder, "--upstream", script.url) as running:
        yield ready(folder, *running)


@pytest.fixture(scope="package")
def blend_url(tiny_model: Path, tiny_blend: TinyBlend, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    folder = tmp_path_factory.mktemp("blend")
    with serving(folder, tiny_model, "--engine", "embedded", "--blend", tiny_blend.folder) as running:
        yield ready(folder, *running)


@pytest.fixture(scope="module")
def browser() -> Generator["Browser"]:
    api = pytest.importorskip("playwright.sync_api", reason="drives the browser")
    from tests.playground.browser import CHROMIUM, launched

    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; on Debian: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: "Browser") -> Generator[Visiting]:
    """Opens pages, which are closed and looked over at the test's end."""
    from tests.playground.browser import visiting

    with ExitStack() as stack:

        def begin(url: str, **context: object) -> "Visit":
            return stack.enter_context(visiting(browser, url, **context))

        yield begin
