"""schemathesis asks every route of the served document for everything that it may be asked, and for what it may not."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.blends import TinyBlend
from tests.robustness import sensible
from tests.server.callers.files import ADMIN_KEY, POLICY, bearer, write
from tests.tiny import TinyAdapter
from tools.processes import free_port, started, wait_until_ready

EXAMPLES: Final = os.environ.get("RHEOSTAT_SCHEMATHESIS_EXAMPLES", "30")
"""For each route; more of them for a long run by hand."""
CLAMPING: Final = POLICY.replace("outside: reject, rate: {requests_per_minute: 600}", "outside: clamp")


@pytest.fixture
def served(
    tiny_model: Path, tiny_adapters: list[TinyAdapter], tiny_blend: TinyBlend, tiny_scorers: Path, tmp_path: Path
) -> Generator[str, None, None]:
    """The address of a server on the embedded engine, with keys, adapters, a blend, scorers and an audit log."""
    adapters = [f"--blend={tiny_blend.folder}", *(f"--adapter={adapter.folder}" for adapter in tiny_adapters)]
    port, log = free_port(), tmp_path / "server.log"
    address = ["--port", str(port), "--served-model-name", "tiny", "--engine", "embedded"]
    policy: list[str | Path] = ["--policy", write(tmp_path, CLAMPING), "--scorers", tiny_scorers]
    environment = {"RHEOSTAT_AUDIT": str(tmp_path / "audit.jsonl"), "RHEOSTAT_THREADS": "1"}
    command: list[str | Path] = ["rheostat", "serve", tiny_model, *address, *adapters, *policy]
    with started(command, log=log, environment=environment) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}/ready", log=log)
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_every_route_does_what_the_document_says(served: str, tmp_path: Path) -> None:
    log = tmp_path / "schemathesis.log"
    command: list[str | Path] = [
        "schemathesis", "run", f"{served}/openapi.json", "--checks", "all", "--max-examples", EXAMPLES, "--seed", "7",
        "--continue-on-failure", "--request-timeout", "30", "--header", f"Authorization: Bearer {ADMIN_KEY}",
    ]  # fmt: skip
    with started(command, log=log, environment={"SCHEMATHESIS_HOOKS": sensible.__name__, "NO_COLOR": "1"}) as process:
        code = process.wait(timeout=280)
    assert code == 0, log.read_text()[-20_000:]


def test_the_document_tells_errors_keys_and_headers(served: str) -> None:
    document: dict[str, Any] = httpx.get(f"{served}/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert path.startswith("/v1/") == ("security" in operation)
            if path.startswith("/v1/"):
                assert {"401", "503"} <= operation["responses"].keys()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"]["properties"]["n"]["maximum"] == 16
    for status in ("400", "403", "404", "413", "415", "422", "429", "502", "503", "504"):
        told = chat["responses"][status]
        assert told["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
        assert told["headers"]["X-Request-ID"]["required"]
    assert {"Retry-After", "X-RateLimit-Remaining-Tokens"} <= chat["responses"]["429"]["headers"].keys()
    assert httpx.get(f"{served}/v1/models", headers=bearer(ADMIN_KEY)).headers["x-request-id"]
