"""Runs the blocks of one page as a reader would: in their order, Python in one interpreter, commands in bash.

It reads them from standard input, as JSON, and runs in a folder of the page's own.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tools.processes import free_port, started, wait_until_ready

SERVES: Final = re.compile(r"^(?:[A-Z_]+=\S+\s+)*rheostat serve\b", re.MULTILINE)
BASH: Final = ("bash", "-euo", "pipefail", "-c")

Step = dict[str, Any]


def run_python(step: Step, namespace: dict[str, Any]) -> None:
    """The lines keep their numbers of the page, for the trace of an error."""
    exec(compile("\n" * (step["line"] - 1) + step["text"], step["page"], "exec"), namespace)


def run_commands(step: Step, _: dict[str, Any]) -> None:
    if SERVES.search(step["text"].replace("\\\n", " ")):
        run_server(step["text"])
        return
    subprocess.run([*BASH, step["text"]], check=True, stdin=subprocess.DEVNULL)


def run_shown(step: Step, namespace: dict[str, Any]) -> None:
    """The lines after a prompt; the others are what they print."""
    commands = [line.removeprefix("$ ") for line in step["text"].splitlines() if line.startswith("$ ")]
    run_commands({**step, "text": "\n".join(commands)}, namespace)


def run_server(text: str) -> None:
    """Until it is ready; a server never ends by itself."""
    port = free_port()
    log = Path("server.log").absolute()
    command: list[str | Path] = [Path("/usr/bin/env"), *BASH, f"cd {Path.cwd()}\n{text}"]
    with started(command, log=log, environment={"RHEOSTAT_PORT": str(port)}) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}/ready", log=log)


RUN: Final[dict[str, Callable[[Step, dict[str, Any]], None]]] = {
    "python": run_python,
    **dict.fromkeys(("sh", "bash"), run_commands),
    "console": run_shown,
}


def main() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for step in json.load(sys.stdin):
        print(f"--- {step['page']}:{step['line']}", flush=True)
        RUN[step["language"]](step, namespace)
        sys.stdout.flush()


if __name__ == "__main__":
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    main()
