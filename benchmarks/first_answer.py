"""A stopwatch beside a newcomer: seconds from the first command to the first dialled answer.

    python -m benchmarks.first_answer [--image COMMAND] [--markdown FILE]

`make serve` runs in a clone made for it, so it installs everything, from pip's own cache where that has it. The Python
client and the page start from a server that runs. COMMAND runs the built image on this machine's network, such as
"podman run --rm --network host rheostat:0.1.0". The page needs Chromium on the PATH.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.sync_api import expect, sync_playwright

from benchmarks.overhead_report import machine, with_section
from tools.processes import ROOT, free_port, output_of, started, wait_until_ready

NAME: Final = "first-answer"
"""Of its marks in the page."""
QUESTION: Final = "How do I repot a fern?"
CONTROL: Final = {"safety": 0.9, "helpfulness": 0.2}
BODY: Final[dict[str, Any]] = {
    "model": "demo",
    "messages": [{"role": "user", "content": QUESTION}],
    "control": CONTROL,
}
PROGRAM: Final = f"""
import sys
from rheostat import Client, Dials
with Client(sys.argv[1], dials={CONTROL}) as client:
    answer = client.chat({QUESTION!r})
    assert answer.content and answer.receipt.effective == Dials(**{CONTROL}), answer.receipt
"""
LONGEST_S: Final = 1800
WITHIN_S: Final = 120


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="a command that runs the built image on this machine's network")
    parser.add_argument("--markdown", type=Path, help="a page to write the table into")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measured(Path(folder), shlex.split(options.image or ""))
    lines = ["| | seconds to the first dialled answer |", "|---|---|"]
    section = "\n".join([*lines, *(f"| {what} | {found:.1f} |" for what, found in seconds.items()), "", machine()])
    print(section)
    if options.markdown:
        options.markdown.write_text(with_section(options.markdown.read_text(), section, NAME))


def measured(folder: Path, image: Sequence[str]) -> dict[str, float]:
    """Seconds by what was done; `image` is empty where none is to be run."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    make = [path_of("make"), "-C", str(clone), "serve"]
    found = {"`make serve` in a fresh clone": served(make, folder)}
    found["`make serve`, installed already"] = served(make, folder)
    if image:
        command = [path_of(image[0]), *image[1:]]
        at = command.index(next(part for part in command if part.startswith(("rheostat", "localhost/"))))
        port = free_port()
        settings = ["-e", "RHEOSTAT_HOST=127.0.0.1", "-e", f"RHEOSTAT_PORT={port}"]
        found["the built image"] = served([*command[:at], *settings, *command[at:]], folder, port)
    return found | with_a_server(folder)


def served(command: Sequence[str], folder: Path, port: int | None = None) -> float:
    """Until a server that is started so has answered."""
    port = port or free_port()
    began = time.monotonic()
    with started(command, log=folder / "log", environment={"RHEOSTAT_PORT": str(port)}) as process:
        while process.poll() is None and time.monotonic() - began < LONGEST_S:
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY, timeout=WITHIN_S)
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.raise_for_status().json()["control"]["effective"] != CONTROL:
                raise RuntimeError(f"other dials were in force: {answer.text}")
            taken = time.monotonic() - began
            print(f"{taken:.1f} s: {shlex.join(command)}", file=sys.stderr)
            return taken
    raise RuntimeError(f"{shlex.join(command)} did not serve: {(folder / 'log').read_text()[-2000:]}")


def with_a_server(folder: Path) -> dict[str, float]:
    """What starts from a server that runs."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    with started(["rheostat", "serve", "--port", str(port)], log=folder / "server.log") as process:
        wait_until_ready(process, f"{url}/ready", log=folder / "server.log")
        return {"a program with the Python client": by_program(url, folder), "the page": by_page(url)}


def by_program(url: str, folder: Path) -> float:
    began = time.monotonic()
    output_of([sys.executable, "-c", PROGRAM, url], log=folder / "program.log", within_s=WITHIN_S)
    return time.monotonic() - began


def by_page(url: str) -> float:
    """From the start of the browser; the page's own first question, under dials that are moved before it is asked."""
    began = time.monotonic()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path_of("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        expect(page.locator("#envelope-told")).not_to_be_empty()
        for dial, level in CONTROL.items():
            page.locator(f"#{dial}").fill(str(level))
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.locator("#answer .receipt")).to_be_visible(timeout=WITHIN_S * 1000)
        taken = time.monotonic() - began
        browser.close()
    return taken


def path_of(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise SystemExit(f"{program} is not on the PATH")
    return found


if __name__ == "__main__":
    main()
