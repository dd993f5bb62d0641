"""clients/curl/: every example runs as it stands against the demo server, and prints what it says that it shows."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest

from tools.processes import ROOT

FOLDER: Final = ROOT / "clients" / "curl"
WITHIN_S: Final = 120

pytestmark = pytest.mark.usefixtures("curl")


def run(name: str, url: str, *arguments: str, key: str = "none") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RHEOSTAT_BASE_URL": url, "RHEOSTAT_API_KEY": key}
    command = [str(FOLDER / name), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN_S)


def printed(name: str, url: str, *arguments: str) -> str:
    done = run(name, url, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def a_first_answer(said: str) -> None:
    answer = json.loads(said)
    assert answer["choices"][0]["message"]["content"]
    assert answer["control"]["effective"] == {"safety": 0.9, "helpfulness": 0.2}
    assert answer["control"]["mode"] == "adapter"


def a_stream(said: str) -> None:
    events = re.findall(r"^data: (.*)$", said, re.MULTILINE)
    assert events.pop() == "[DONE]"
    chunks: list[dict[str, Any]] = [json.loads(event) for event in events]
    assert len("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])) > 20
    assert chunks[-1]["control"]["effective"] == {"safety": 0.9, "helpfulness": 0.2}


def a_strict_answer(said: str) -> None:
    assert json.loads(said)["control"]["effective"] == {"safety": 1.0, "helpfulness": 0.5}


def dials_of_headers(said: str) -> None:
    control = json.loads(said)["control"]
    assert (control["mode"], control["effective"]) == ("prompt", {"safety": 0.9, "helpfulness": 0.2})


def the_best_of_eight(said: str) -> None:
    control = json.loads(said)["control"]
    assert control["candidates"]["wanted"] == 8
    assert {*control["scores"]} == {"safety", "helpfulness"}


def scores_of_a_given_answer(said: str) -> None:
    scores = json.loads(said)["scores"]
    assert scores["safety"] > 0.9
    assert scores["helpfulness"] < 0.6


def four_points(said: str) -> None:
    points = json.loads(said)["points"]
    assert [(point["safety"], point["helpfulness"]) for point in points] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(point["content"] and point["scores"] for point in points)


def a_dry_run(said: str) -> None:
    plan = json.loads(said)
    assert plan["effective"] == {"safety": 1.0, "helpfulness": 0.8}
    assert plan["engine_request"]["messages"][0]["role"] == "system"


def an_envelope(said: str) -> None:
    assert json.loads(said)["dials"]["safety"]["max"] == 1


def three_refusals(said: str) -> None:
    assert re.findall(r"^status (\d+)$", said, re.MULTILINE) == ["422", "422", "404"]
    assert "control.safety is 1.5" in said
    assert "magic" in said
    assert "loud" in said


EXAMPLES: Final[dict[str, Callable[[str], None]]] = {
    "first-answer.sh": a_first_answer,
    "stream.sh": a_stream,
    "preset.sh": a_strict_answer,
    "headers.sh": dials_of_headers,
    "rerank.sh": the_best_of_eight,
    "score.sh": scores_of_a_given_answer,
    "sweep.sh": four_points,
    "plan.sh": a_dry_run,
    "what-may-i-set.sh": an_envelope,
    "errors.sh": three_refusals,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_shows(name: str, demo_url: str) -> None:
    EXAMPLES[name](printed(name, demo_url))


def test_another_preset_is_an_argument(demo_url: str) -> None:
    assert json.loads(printed("preset.sh", demo_url, "demo:open"))["control"]["effective"]["helpfulness"] == 1.0


def test_the_address_may_end_as_openais_clients_want_it(demo_url: str) -> None:
    an_envelope(printed("what-may-i-set.sh", f"{demo_url}/v1"))


def test_every_example_is_tested_told_and_short() -> None:
    scripts = {path.name: path.read_text() for path in FOLDER.glob("*.sh")}
    assert (
        {*scripts}
        == {*EXAMPLES}
        == set(re.findall(r"^\| `(.*?\.sh)` \|", (FOLDER / "README.md").read_text(), re.MULTILINE))
    )
    assert [name for name, text in scripts.items() if "set -euo pipefail" not in text or text.count("\n") > 20] == []


class Refusing(BaseHTTPRequestHandler):
    """Knows no key, and tells the one that it was given."""

    def refuse(self) -> None:
        body = json.dumps({"error": {"code": "invalid_api_key", "message": self.headers["Authorization"]}}).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = refuse  # noqa: N815, the names are http.server's

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def refusing_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "errors.sh"])
def test_an_example_sends_its_key_and_where_it_is_refused_fails_and_shows_why(name: str, refusing_url: str) -> None:
    done = run(name, refusing_url, key="not-a-known-key")
    assert done.returncode != 0
    assert "401" in done.stderr
    assert json.loads(done.stdout)["error"] == {"code": "invalid_api_key", "message": "Bearer not-a-known-key"}
