"""The built image of the demo: it answers on a root that cannot be written, ends when told to, and is open to nobody.

CONTAINER_RUN="podman run --network host" pytest tests/deploy/test_image.py
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.deploy.files import LAST_SECONDS, USER, VERSION
from tools.processes import free_port, started, wait_until_ready

RUN = os.environ.get("CONTAINER_RUN")
IMAGE = f"rheostat:{VERSION}"
HARDENED = ("--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
pytestmark = pytest.mark.skipif(RUN is None, reason=f"CONTAINER_RUN names no command that runs the built {IMAGE}")


def container(*options: str, arguments: Sequence[str] = ()) -> list[str]:
    return [*shlex.split(RUN or ""), *HARDENED, *options, IMAGE, *arguments]


def test_it_answers_under_its_dials_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "image.log"
    command = container("-e", "RHEOSTAT_HOST=127.0.0.1", "-e", f"RHEOSTAT_PORT={port}")
    with started(["/usr/bin/env", *command], log=log) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}/ready", log=log)
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": "How do I repot a fern?"}],
            "control": {"safety": 0.9, "helpfulness": 0.2},
        }
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60).json()
        assert answer["control"]["effective"] == body["control"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30 + LAST_SECONDS) == 0


def test_it_refuses_to_be_open_to_whoever_reaches_it() -> None:
    ended = subprocess.run(container(), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "there is no policy file" in ended.stderr


def test_it_runs_as_a_user_with_a_number_and_holds_neither_pip_nor_compiler() -> None:
    script = (
        "id -u; for each in pip pip3 gcc cc; do command -v $each; done; python3 -m pip --version 2>/dev/null || true"
    )
    ended = subprocess.run(
        container("--entrypoint", "sh", arguments=["-c", script]), capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == [str(USER)]
