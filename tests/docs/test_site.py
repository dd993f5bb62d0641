"""The documentation builds as a site without a warning, holds every page, and loads nothing from elsewhere."""

import re
from pathlib import Path
from typing import Final

import pytest

from tools.processes import ROOT, output_of

WITHIN_S: Final = 120
LOADS: Final = re.compile(
    r"<(?:script|img|iframe|source|object|embed)\b[^>]*?\b(?:src|data)=[\"']?((?:https?:)?//[^\"'\s>]+)"
)
STYLES: Final = re.compile(
    r"<link\b(?=[^>]*rel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*href=[\"']?((?:https?:)?//[^\"'\s>]+)"
)
IN_CSS: Final = re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command: list[str | Path] = ["mkdocs", "build", "--strict", "--quiet", "--site-dir", folder / "site"]
    said = output_of(command, log=folder / "log", within_s=WITHIN_S, environment={"NO_MKDOCS_2_WARNING": "true"})
    assert said == ""
    return folder / "site"


def test_every_page_is_in_it(site: Path) -> None:
    pages = {page.stem for page in ROOT.glob("docs/*.md")}
    assert pages <= {page.stem for page in site.glob("*.html")}


def test_every_link_of_it_leads_to_a_file_of_it(site: Path) -> None:
    pages = [page for page in site.glob("*.html") if page.name != "404.html"]
    dead = {
        (page.name, link)
        for page in pages
        for link in re.findall(r"<a\b[^>]*?\bhref=[\"']?([^\"'\s>#]+)", page.read_text())
        if not re.match(r"\w+:", link) and not (page.parent / link).exists()
    }
    assert dead == set()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = {page.name: page.read_text() for page in site.glob("**/*.html")}
    styles = {style.name: style.read_text() for style in site.glob("**/*.css")}
    assert pages
    assert styles
    assert {name: found for name, text in pages.items() if (found := LOADS.findall(text) + STYLES.findall(text))} == {}
    assert {name: found for name, text in styles.items() if (found := IN_CSS.findall(text))} == {}
