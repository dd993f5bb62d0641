"""The demo server that the pages' requests and the examples are sent to, as `make serve` starts it."""

import shutil
from collections.abc import Iterator

import pytest

from tools.processes import free_port, started, wait_until_ready


@pytest.fixture(scope="session")
def demo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("demo") / "server.log"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started(["rheostat", "serve", "--port", str(port)], log=log) as process:
        wait_until_ready(process, f"{url}/ready", log=log)
        yield url


@pytest.fixture(scope="session")
def curl() -> str:
    """Where curl is."""
    found = shutil.which("curl")
    if found is None or shutil.which("bash") is None:
        pytest.skip("curl or bash is not installed")
    return found
