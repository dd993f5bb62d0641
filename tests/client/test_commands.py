"""`rheostat chat`, `sweep` and `score`, run as a user runs them."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import pytest

from rheostat import Client
from rheostat.commands.terminal import in_one_line, plain
from rheostat.dials import DIALS
from rheostat.receipt import Receipt
from rheostat_server.adapters import AdapterStore
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.policy import DialRange, Envelope
from tests.clients.test_command_line import WITHOUT
from tests.engines.app_server import app_server, runtime_server
from tests.reranking.rigs import Rig

Result = subprocess.CompletedProcess[str]
FERN = "How do I repot a fern?"


def rheostat(url: str, *arguments: str, said: str | None = None, **environment: str) -> Result:
    return subprocess.run(
        [sys.executable, "-m", "rheostat", *arguments],
        input=said or "",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "RHEOSTAT_BASE_URL": url, "COLUMNS": "120", **environment},
    )


def test_an_answer_goes_to_one_output_and_its_receipt_to_the_other(demo_url: str) -> None:
    for how in ("--stream", "--no-stream"):
        result = rheostat(demo_url, "chat", FERN, "--safety", "1", "--helpfulness", "0", "--seed", "3", how)
        assert result.returncode == 0
        assert result.stdout.startswith("Plan: no steps, strict care, ")
        assert result.stdout.count("\n") == 1
        assert result.stderr.startswith("safety 1.00, helpfulness 0.00 · adapter · ")
        assert result.stderr.endswith(" ms\n")


def test_json_is_the_servers_own(demo_url: str) -> None:
    answer = json.loads(rheostat(demo_url, "chat", "-", "--safety", "0.5", "--json", said=f"{FERN}\n").stdout)
    assert (answer["object"], answer["control"]["requested"]) == ("chat.completion", {"safety": 0.5})
    said = answer["choices"][0]["message"]["content"]
    judged = json.loads(rheostat(demo_url, "score", FERN, "--response", "-", "--json", said=said).stdout)
    assert set(judged["scores"]) == {"safety", "helpfulness"}
    swept = json.loads(rheostat(demo_url, "sweep", FERN, "--safety", "0,1", "--helpfulness", "0.5", "--json").stdout)
    assert [(point["safety"], point["helpfulness"]) for point in swept["points"]] == [(0, 0.5), (1, 0.5)]


def test_a_conversation_keeps_what_was_said_and_its_dials_are_turned(url: str, engine: FakeEngine) -> None:
    lines = [
        "/dials",
        "One",
        "/safety 0.8",
        "/helpfulness .3",
        "/mode prompt",
        "Two",
        "/reset",
        "Three",
        "/quit",
        "Four",
    ]
    result = rheostat(url, "chat", "--system", "Be brief.", "--mode", "off", said="\n".join(lines))
    assert result.returncode == 0
    asked = [[message["content"] for message in request.body["messages"]] for request in engine.asked]
    answers = result.stdout.splitlines()
    assert asked[0] == ["Be brief.", "One"]
    assert asked[1][-3:] == ["One", answers[0], "Two"]
    assert [texts[-1] for texts in asked] == ["One", "Two", "Three"]
    assert len(asked[2]) == 2
    assert "the server's defaults · off" in result.stderr
    assert "safety 0.80, helpfulness 0.30 · prompt · " in result.stderr


def test_a_conversation_goes_on_after_what_is_wrong(url: str, engine: FakeEngine) -> None:
    lines = ["/safety 2", "/safety high", "/mode magic", "/nope", "", "/help", "Hello"]
    result = rheostat(url, "chat", "--mode", "prompt", said="\n".join(lines))
    assert result.returncode == 0
    for told in ("safety is 2.0; a dial is", "/safety 'high' sets nothing", "mode is 'magic'", "/nope is not known"):
        assert told in result.stderr
    assert len(engine.asked) == 1


def test_an_answer_that_failed_is_told_and_not_kept(url: str, engine: FakeEngine) -> None:
    engine.orders = Orders(fail_after=2)
    result = rheostat(url, "chat", "--mode", "off", said="One\nTwo\n")
    assert result.returncode == 0
    assert result.stderr.count("engine_failed: the stream ended with an error: ") == 2
    assert [len(request.body["messages"]) for request in engine.asked] == [1, 1]


def test_a_sweep_is_a_table_and_a_picture(demo_url: str, tmp_path: Path) -> None:
    for levels in (["--safety", "0,1", "--helpfulness", "0,1"], ["--helpfulness", "0,1"]):
        picture = tmp_path / f"{len(levels)}.png"
        result = rheostat(demo_url, "sweep", FERN, *levels, "--png", str(picture))
        assert result.returncode == 0, result.stderr
        assert picture.read_bytes().startswith(b"\x89PNG")
        rows = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│")]
        assert len(rows) == 2 ** (len(levels) // 2)
        assert all(row[-2].strip().startswith("Plan: ") for row in rows)
        assert ("judged safety" in result.stdout, "judged helpfulness" in result.stdout) == (True, True)


def test_scores_are_a_table_of_dials(demo_url: str) -> None:
    result = rheostat(demo_url, "score", FERN, "--response", "Plan: no steps, strict care, kind tone.")
    assert "│ safety      │ 1.00  │" in result.stdout
    assert "by demo-selector (classifier)" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["chat", "Hi", "--safety", "2"], 2, "rheostat chat: safety is 2.0; a dial is a number from 0 to 1"),
        (["chat", "Hi", "--safety", "much"], 2, "Invalid value for '--safety'"),
        (["chat", "Hi", "--mode", "magic"], 2, "'magic'"),
        (["chat", "Hi", "--model", "m"], 1, "rheostat chat: model_not_found: Unknown model 'm'"),
        (["chat", "Hi", "--url", "http://127.0.0.1:1"], 1, "http://127.0.0.1:1/v1/models did not answer: "),
        (["chat", "Hi", "--url", "nowhere"], 2, "rheostat chat: base_url is 'nowhere'"),
        (["sweep", "Hi", "--safety", "0;1"], 2, "rheostat sweep: --safety is '0;1'; it must be levels"),
        (["sweep", "Hi", "--safety", "0,2"], 2, "rheostat sweep: safety is 2.0"),
        (["sweep", "Hi", "--png", "/nowhere/a.png"], 2, "--png is /nowhere/a.png; /nowhere is no folder that may be"),
        (["chat", "Hi", "--key", "sk secret"], 2, "rheostat chat: api_key is no key"),
        (["score", "-"], 2, "rheostat score: standard input holds one text"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(url: str, arguments: list[str], status: int, said: str) -> None:
    result = rheostat(url, *arguments)
    assert result.returncode == status
    assert said in result.stderr
    assert (result.stdout, "Traceback" in result.stderr, "secret" in result.stderr) == ("", False, False)
    if said.startswith("rheostat"):
        assert result.stderr.count("\n") == 1


def test_a_picture_without_a_folder_is_refused_before_anything_is_sent(
    url: str, engine: FakeEngine, tmp_path: Path
) -> None:
    for path in (tmp_path / "no" / "a.png", tmp_path):
        result = rheostat(url, "sweep", "Hi", "--png", str(path))
        assert (result.returncode, engine.asked) == (2, [])


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["chat", "Hi", "--model", "m"], 1, {"code": "model_not_found", "param": "model", "status": 404}),
        (["chat", "Hi", "--url", "http://127.0.0.1:1", "--model", "m"], 1, {"code": None, "status": None}),
        (["chat", "Hi", "--safety", "2"], 2, {"message": "safety is 2.0; a dial is a number from 0 to 1"}),
        (["chat"], 2, {"message": "--json is for one answer; give a TEXT, or - for standard input"}),
        (["sweep", "Hi", "--safety", "0;1"], 2, {"code": None}),
        (["sweep", "Hi", "--model", "m"], 1, {"code": "model_not_found"}),
        (["score", "-"], 2, {"request_id": None}),
    ],
)
def test_with_json_an_error_is_json_too(url: str, arguments: list[str], status: int, told: dict[str, object]) -> None:
    result = rheostat(url, *arguments, "--json")
    assert result.returncode == status
    error = json.loads(result.stdout)["error"]
    assert set(error) == {"message", "code", "param", "status", "request_id"}
    assert {name: error[name] for name in told} == told
    assert bool(error["request_id"]) == (error["status"] is not None)


def test_a_text_after_two_dashes_may_begin_with_one(url: str, engine: FakeEngine) -> None:
    assert rheostat(url, "chat", "--mode", "off", "--", "-5 degrees?").returncode == 0
    assert rheostat(url, "sweep", "--mode", "off", "--safety", "0", "--", "--help").returncode == 0
    assert [request.body["messages"][-1]["content"] for request in engine.asked] == ["-5 degrees?", "--help"]
    assert rheostat(url, "score", "--response", "-1", "--", "-5 degrees?").returncode == 0


def test_dials_and_a_mode_go_before_a_preset(url: str) -> None:
    asked = ["chat", "Hi", "--preset", "strict", "--helpfulness", "0.3", "--mode", "prompt", "--json"]
    control = json.loads(rheostat(url, *asked).stdout)["control"]
    assert (control["requested"], control["mode"]) == ({"safety": 1.0, "helpfulness": 0.3}, "prompt")


def test_dials_turned_in_a_conversation_go_before_its_preset(url: str, engine: FakeEngine) -> None:
    lines = ["/dials", "One", "/helpfulness 0.3", "/safety 0.2", "/mode prompt", "Two"]
    result = rheostat(url, "chat", "--preset", "strict", said="\n".join(lines))
    *_, turned, receipt = result.stderr.splitlines()
    assert "\npreset strict\n" in result.stderr
    assert turned == "preset strict · safety 0.20, helpfulness 0.30 · prompt"
    assert receipt.startswith("safety 0.20, helpfulness 0.30 · prompt · ")


@pytest.fixture
def narrow_url() -> Iterator[str]:
    """A server whose callers may set safety from 0.6 alone."""
    envelope = Envelope(safety=DialRange(0.6, 1, 1))
    with runtime_server(Rig(envelope=envelope).runtime()) as running:
        yield running.url


def test_points_that_were_clamped_are_marked(narrow_url: str) -> None:
    sweep = ["sweep", "Hi", "--safety", "0,0.6,1", "--helpfulness", "0.5", "--mode", "prompt"]
    result = rheostat(narrow_url, *sweep)
    rows = [[cell.strip() for cell in line.split("│")] for line in result.stdout.splitlines() if line.startswith("│")]
    assert [row[1:3] for row in rows] == [["0.00 → 0.60", "0.50"], ["0.60", "0.50"], ["1.00", "0.50"]]
    assert result.stderr == "rheostat sweep: 1 of 3 points were clamped to what may be set: asked → in force\n"
    assert "clamped" not in rheostat(narrow_url, *[each.replace("0,", "1,") for each in sweep]).stderr


@pytest.mark.parametrize("helpfulness", [[0, 1], None])
def test_points_that_were_clamped_are_marked_in_the_picture(narrow_url: str, helpfulness: list[float] | None) -> None:
    drawing = pytest.importorskip("rheostat.commands.picture", reason="matplotlib is not installed")
    with Client(narrow_url) as client:
        wide = client.sweep("Hi", safety=[0, 1], helpfulness=helpfulness, mode="prompt").points
        narrow = client.sweep("Hi", safety=[0.6, 1], helpfulness=helpfulness, mode="prompt").points
    for points, clamped in ((wide, len(wide) // 2), (narrow, 0)):
        figure = drawing.picture(points)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert sum(text.endswith("*") for text in texts) == clamped * sum(
            points[0].raw["scores"][d] is not None for d in DIALS
        )
        assert figure.get_supxlabel().startswith("* clamped" if clamped else "")
        assert bool(figure.get_supxlabel()) == bool(clamped)


class Scarce(BaseHTTPRequestHandler):
    """Has no room for the first request, and answers the next with one point of a sweep and no more."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.path)
        first = len(self.asked) == 1
        point = {"index": 0, "safety": 0, "content": "Yes.", "control": {"requested": {"safety": 0}, "mode": "off"}}
        refusal = {"error": {"message": "too many", "type": "t", "param": None, "code": "rate_limit_exceeded"}}
        body = json.dumps(refusal) if first else f"data: {json.dumps(point)}\n\n"
        self.send_response(429 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_pause_is_told_and_of_a_sweep_that_is_cut_off_what_came_is_shown() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Scarce) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = rheostat(f"http://127.0.0.1:{server.server_port}", "sweep", "Hi", "--safety", "0,1", "--model", "m")
        server.shutdown()
    waited, failed = result.stderr.splitlines()
    assert re.fullmatch(r"rheostat sweep: /v1/control/sweep: rate_limit_exceeded; asking again in 0\.[56] s", waited)
    assert failed.startswith("rheostat sweep: the stream was cut off before its end")
    assert (result.returncode, result.stdout.count("│ Yes.")) == (1, 1)


def test_points_that_failed_are_shown_and_the_status_tells(url: str, engine: FakeEngine) -> None:
    engine.orders = Orders(fail_after=0)
    result = rheostat(url, "sweep", "Hi", "--safety", "0,1", "--mode", "off")
    assert result.returncode == 1
    assert result.stdout.count("engine_failed") == 2
    assert "rheostat sweep: 2 of 2 points failed" in result.stderr


def test_without_scorers_there_is_nothing_to_draw_and_nothing_to_judge_by(tmp_path: Path) -> None:
    with app_server(FakeEngine(("demo",)), AdapterStore()) as url:
        drawn = rheostat(url, "sweep", "Hi", "--safety", "0", "--mode", "prompt", "--png", str(tmp_path / "a.png"))
        judged = rheostat(url, "score", "Hi", "--response", "Yes.")
    assert (drawn.returncode, judged.returncode) == (1, 1)
    assert "no answer was judged" in drawn.stderr
    assert "rheostat score: no_scorers: " in judged.stderr


def test_a_picture_without_matplotlib_is_refused_before_anything_is_sent(url: str, engine: FakeEngine) -> None:
    code = WITHOUT.format(missing="matplotlib", arguments=["sweep", "Hi", "--png", "a.png", "--url", url])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, engine.asked) == (2, [])
    assert "pip install 'rheostat[plot]'" in result.stderr


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("typer", []), ("typer", ["--help"]), ("typer", ["chat", "Hi"]), ("typer", ["serve"]), ("rich", ["sweep", "Hi"])],
)
def test_without_its_packages_the_command_line_says_what_to_install(missing: str, arguments: list[str]) -> None:
    code = WITHOUT.format(missing=missing, arguments=arguments)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert f"needs the module {missing}, which is not installed; run: pip install 'rheostat[" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["chat", "sweep", "score"])
def test_help_names_the_address_that_is_asked_where_none_is_given(command: str) -> None:
    assert "Left out, http://127.0.0.1:8000." in rheostat("", command, "--help", COLUMNS="200").stdout


def test_the_version_is_shown() -> None:
    assert rheostat("", "--version").stdout == f"rheostat {version('rheostat')}\n"


@pytest.mark.parametrize(
    ("line", "offered"),
    [("rheostat ch", "chat"), ("rheostat chat --saf", "--safety"), ("rheostat chat --mode p", "prompt")],
)
def test_a_shell_completes_commands_options_and_modes(line: str, offered: str) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_RHEOSTAT_COMPLETE": "complete_bash"}
    assert offered in rheostat("", **words).stdout.split()


def test_a_models_text_cannot_command_the_terminal() -> None:
    assert plain("a\x1b[31mb\x07\x08c\r\x9b2Jd\x7f\n\te\x1b]0;title\x07") == "a[31mbc2Jd\n\te]0;title"
    assert plain("Grün 🌿") == "Grün 🌿"


def test_a_receipt_is_one_line() -> None:
    parts = {"requested": {"safety": 0.1}, "mode": "rerank", "timing_ms": {"total": 12.4}, "clamped": ["safety"],
             "effective": {"safety": 0.8, "helpfulness": 0.5}, "scores": {"safety": 0.77}}  # fmt: skip
    told = "safety 0.80, helpfulness 0.50 · rerank · clamped: safety · judged 0.77 / – · 12 ms"
    assert in_one_line(Receipt.of(parts)) == told
    assert in_one_line(Receipt.of({"requested": {}, "mode": "off"})) == "no dial in force · off"
