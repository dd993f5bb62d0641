"""A server process with a policy file: reloaded by SIGHUP under load, and never open to others by mistake."""

import signal
import threading
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from rheostat_server import serve
from rheostat_server.errors import CannotStart
from rheostat_server.settings import Settings
from tests.server.callers.files import KIDS_KEY, POLICY, bearer, write
from tools.processes import Process, free_port, started, wait_until_ready

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "control": {"safety": 0}}


@pytest.fixture
def server(tmp_path: Path) -> Generator[tuple[Process, str, Path]]:
    path = write(tmp_path)
    url = f"http://127.0.0.1:{(port := free_port())}"
    log = tmp_path / "server.log"
    with started(["rheostat", "serve", "--policy", path, "--port", str(port)], log=log) as process:
        wait_until_ready(process, f"{url}/ready", log=log)
        yield process, url, path


def test_a_hangup_has_the_policy_read_anew_and_no_request_is_dropped(
    server: tuple[Process, str, Path], tmp_path: Path
) -> None:
    process, url, path = server
    seen: list[float] = []
    wrong: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, headers=bearer(KIDS_KEY), timeout=60) as http:
            while not stop.is_set():
                response = http.post("/v1/chat/completions", json=CHAT)
                if response.status_code == 200:
                    seen.append(response.json()["control"]["effective"]["safety"])
                else:
                    wrong.append(response.text)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for text, floor in ((POLICY.replace("min: 0.8", "min: 0.9"), 0.9), ("envelopes: {a: ]", 0.9), (POLICY, 0.8)):
            path.write_text(text)
            process.send_signal(signal.SIGHUP)
            _wait_for(seen, floor)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert set(seen) == {0.8, 0.9}
    assert "policy refused, the old one stays in force" in (tmp_path / "server.log").read_text()
    assert KIDS_KEY not in (tmp_path / "server.log").read_text()


def _wait_for(seen: list[float], floor: float, *, more: int = 8) -> None:
    """Until so many answers in a row were given at that floor."""
    begin, patience = len(seen), threading.Event()
    for _ in range(600):
        if len(seen) - begin > more and set(seen[-more:]) == {floor}:
            return
        patience.wait(0.05)
    raise AssertionError(f"the floor {floor} was not in force within 30 s: {seen[-20:]}")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_a_server_that_others_can_reach_wants_a_policy_or_to_be_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    begun: list[Settings] = []
    monkeypatch.setattr(serve, "STARTS", {"embedded": lambda settings, _: begun.append(settings)})
    with pytest.raises(CannotStart, match=r"--policy FILE, or say --allow-anonymous, or listen on 127\.0\.0\.1"):
        serve.start(Settings(host=host), engine_flags=[])
    assert begun == []
    serve.start(Settings(host=host, allow_anonymous=True), engine_flags=[])
    serve.start(Settings(host=host, policy=write(tmp_path)), engine_flags=[])
    for own in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        serve.start(Settings(host=own), engine_flags=[])
    assert len(begun) == 6


def test_a_policy_that_does_not_fit_is_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(serve, "STARTS", {"embedded": lambda *_: pytest.fail("the engine was started")})
    with pytest.raises(CannotStart, match=r"policy.yaml:1: envelopes.a.safety.min"):
        serve.start(Settings(policy=write(tmp_path, "envelopes: {a: {safety: {min: 2}}}")), engine_flags=[])
