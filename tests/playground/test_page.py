"""The playground over HTTP: its headers, its files, and that nothing in them leads elsewhere."""

import re
from collections.abc import Iterator
from typing import Final

import httpx
import pytest
from fastapi import FastAPI

from rheostat_server.adapters import AdapterStore
from rheostat_server.api.page import FOLDER, MEDIA_TYPES
from rheostat_server.app import add_routes
from rheostat_server.engines.fake import FakeEngine
from rheostat_server.engines.vllm.gate import close_all_but
from rheostat_server.serve import make_runtime
from rheostat_server.settings import Settings
from tests.engines.app_server import runtime_server

FILES: Final = sorted(path.name for path in FOLDER.iterdir() if path.name != "index.html")
SVG: Final = "http://www.w3.org/2000/svg"
REFERENCE: Final = re.compile(r"""(?:src|href)="([^"#]+)"|from "\./([^"]+)"|\burl\((?!#)([^)]+)\)""")


def served(settings: Settings) -> Iterator[httpx.Client]:
    runtime = make_runtime(FakeEngine(served=("demo",)), AdapterStore(), settings, None)
    with runtime_server(runtime) as running, httpx.Client(base_url=running.url) as client:
        yield client


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    yield from served(Settings())


@pytest.fixture(scope="module")
def without() -> Iterator[httpx.Client]:
    yield from served(Settings(playground=False))


def paths() -> list[str]:
    return ["/", *(f"/playground/{name}" for name in FILES)]


@pytest.mark.parametrize("path", paths())
def test_every_file_comes_with_a_strict_policy(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 200
    rules = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert rules["require-trusted-types-for"] == "'script'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


def test_files_have_their_media_types(http: httpx.Client) -> None:
    assert http.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert http.get("/playground/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert http.get("/playground/style.css").headers["content-type"] == "text/css; charset=utf-8"


def test_a_file_that_the_browser_has_is_not_sent_again(http: httpx.Client) -> None:
    first = http.get("/playground/app.js")
    again = http.get("/playground/app.js", headers={"If-None-Match": f'W/"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert http.get("/playground/app.js", headers={"If-None-Match": '"other"'}).status_code == 200
    assert first.headers["cache-control"] == "no-cache"


def test_the_page_can_be_asked_for_without_its_content(http: httpx.Client) -> None:
    response = http.head("/")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == len((FOLDER / "index.html").read_bytes())


@pytest.mark.parametrize(
    "path", ["/playground/", "/playground/index.html", "/playground/none.js", "/playground/..%2fapp.py"]
)
def test_there_is_nothing_beside_its_files(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", paths())
def test_an_operator_can_turn_it_off(without: httpx.Client, path: str) -> None:
    response = without.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert without.get("/v1/control").status_code == 200


async def test_the_gate_in_vllm_opens_it_for_reading_alone() -> None:
    app = FastAPI()
    add_routes(app)
    close_all_but(list(app.routes), app)
    app.state.rheostat = make_runtime(FakeEngine(served=("demo",)), AdapterStore(), Settings(), None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        for path in ("/", "/playground/app.js"):
            statuses = {
                method: (await http.request(method, path)).status_code for method in ("GET", "HEAD", "POST", "PUT")
            }
            assert statuses == {"GET": 200, "HEAD": 200, "POST": 404, "PUT": 404}
        assert (await http.get("/playground/")).status_code == 404


def test_no_file_names_an_address_elsewhere() -> None:
    text = "".join(path.read_text() for path in FOLDER.iterdir()).replace(SVG, "")
    assert re.findall(r"https?://|//[a-z]+\.", text) == []


def test_no_script_or_style_stands_in_the_page() -> None:
    page = (FOLDER / "index.html").read_text()
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page) == []
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_no_script_makes_html_or_code_of_text() -> None:
    scripts = "".join(path.read_text() for path in FOLDER.glob("*.js"))
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\beval\(|new Function"
    assert re.findall(makers, scripts) == []


def test_what_a_file_refers_to_is_there_and_every_file_is_referred_to() -> None:
    found = {
        next(filter(None, groups)).removeprefix("playground/")
        for path in FOLDER.iterdir()
        for groups in REFERENCE.findall(path.read_text())
    }
    assert found == set(FILES)
    assert {path.suffix for path in FOLDER.iterdir()} <= set(MEDIA_TYPES)
