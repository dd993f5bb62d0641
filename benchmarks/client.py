"""What the Python client adds to a request, beside bare httpx on the same server.

    python -m benchmarks.client [--requests 200] [--url URL] [--markdown FILE]

The demo on the embedded engine, unless a server is named. Requests of the client and of httpx take turns, each first as
often as the other, so that whatever else the machine does falls on both; whole answers and streams. Then the same on a
transport that answers at once, where nothing but the two is measured.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from benchmarks.overhead_report import machine, with_section
from rheostat import Client
from tools.processes import free_port, started, wait_until_ready

NAME: Final = "client"
"""Of its marks in the page."""
AT_ONCE: Final = 2000
"""Requests on the transport that answers at once."""
CONTROL: Final = {"safety": 0.9, "helpfulness": 0.6}
QUESTION: Final = "How do I repot a fern?"
BODY: Final[dict[str, Any]] = {
    "model": "demo",
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 40,
    "temperature": 0,
    "control": CONTROL,
}
HEAD: Final[dict[str, Any]] = {"id": "chatcmpl-1", "created": 1, "model": "demo"}
RECEIPT: Final[dict[str, Any]] = {
    "requested": CONTROL,
    "effective": CONTROL,
    "clamped": [],
    "mode": "adapter",
    "adapter": "demo-control@28a8eb9df09d",
    "control_text": "[helpful=0.60][harmless=0.90]",
    "control_values": CONTROL,
    "timing_ms": {"plan": 0.2, "total": 250.0},
}
PIECES: Final = 40
WHOLE: Final = json.dumps(
    {
        **HEAD,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "word " * PIECES}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 33, "completion_tokens": PIECES, "total_tokens": 33 + PIECES},
        "control": RECEIPT,
    }
).encode()
"""As the demo answers."""
EVENTS: Final[list[dict[str, Any]]] = [
    *({**HEAD, "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]} for _ in range(PIECES)),
    {**HEAD, "choices": [], "control": RECEIPT},
]
STREAM: Final = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in EVENTS) + b"data: [DONE]\n\n"
Ask = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds of the client's requests and of httpx's; those of the same index were sent one after the other."""

    what: str
    ours: Sequence[float]
    bare: Sequence[float]

    def ratio(self) -> tuple[float, float, float]:
        """The ratio of the medians and its 95 % interval, by resampling pairs."""
        both = np.array([self.ours, self.bare])
        chosen = np.random.default_rng(0).integers(0, both.shape[1], (2000, both.shape[1]))
        drawn = np.median(both[0][chosen], axis=1) / np.median(both[1][chosen], axis=1)
        low, high = np.quantile(drawn, (0.025, 0.975))
        return float(np.median(both[0]) / np.median(both[1])), float(low), float(high)

    def line(self) -> str:
        ratio, low, high = self.ratio()
        ours, bare = statistics.median(self.ours), statistics.median(self.bare)
        cells = (
            self.what,
            len(self.ours),
            f"**{ratio:.3f}** ({low:.3f} to {high:.3f})",
            f"{ours * 1000:.3f} / {bare * 1000:.3f}",
            f"{(ours - bare) * 1e6:.0f}",
        )
        return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="The client beside bare httpx.")
    parser.add_argument("--requests", type=int, default=200, help="requests of either to the demo, of either kind")
    parser.add_argument("--url", help="a server that is there; left out, the demo is started")
    parser.add_argument("--markdown", type=Path, help="put the table into this page, between its marks")
    options = parser.parse_args()
    with _server(options.url) as url:
        pairs = [*_on_server(url, options.requests), *_at_once()]
    head = "| | requests of either | ratio of medians (95 %) | ms, client / httpx | added, µs |\n|---|---|---|---|---|"
    section = "\n".join([head, *(pair.line() for pair in pairs), "", machine()])
    print(section)
    if options.markdown:
        options.markdown.write_text(with_section(options.markdown.read_text(), section, NAME))


@contextmanager
def _server(url: str | None) -> Generator[str]:
    if url:
        yield url
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with started(["rheostat", "serve", "--port", str(port)], log=log) as process:
            wait_until_ready(process, f"http://127.0.0.1:{port}/ready", log=log)
            yield f"http://127.0.0.1:{port}"


def _on_server(url: str, requests: int) -> list[Pair]:
    with Client(url) as client, httpx.Client(base_url=url, timeout=600) as http:
        return [
            _compare("demo, whole", requests, lambda: _whole(client), lambda: _bare_whole(http)),
            _compare("demo, streamed", requests, lambda: _streamed(client), lambda: _bare_streamed(http)),
        ]


def _at_once() -> list[Pair]:
    transport = httpx.MockTransport(_answer_at_once)
    with (
        Client("http://server", transport=transport) as client,
        httpx.Client(base_url="http://server", transport=transport) as http,
    ):
        return [
            _compare("answered at once, whole", AT_ONCE, lambda: _whole(client), lambda: _bare_whole(http)),
            _compare("answered at once, streamed", AT_ONCE, lambda: _streamed(client), lambda: _bare_streamed(http)),
        ]


def _answer_at_once(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=STREAM if b'"stream"' in request.content else WHOLE)


def _compare(what: str, requests: int, ours: Ask, bare: Ask) -> Pair:
    """One of each first, unmeasured; then by turns, which of them begins changing each time."""
    ours(), bare()
    measured: dict[Ask, list[float]] = {ours: [], bare: []}
    for number in range(requests):
        for ask in (ours, bare) if number % 2 else (bare, ours):
            began = time.perf_counter()
            ask()
            measured[ask].append(time.perf_counter() - began)
    return Pair(what, measured[ours], measured[bare])


def _whole(client: Client) -> str | None:
    return client.chat(QUESTION, model="demo", dials=CONTROL, max_tokens=40, temperature=0).content


def _bare_whole(http: httpx.Client) -> str:
    text: str = http.post("/v1/chat/completions", json=BODY).json()["choices"][0]["message"]["content"]
    return text


def _streamed(client: Client) -> str:
    with client.stream(QUESTION, model="demo", dials=CONTROL, max_tokens=40, temperature=0) as stream:
        return "".join(stream)


def _bare_streamed(http: httpx.Client) -> str:
    pieces: list[str] = []
    with http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line.removeprefix("data: "))["choices"]
                pieces.extend(choice["delta"].get("content") or "" for choice in choices)
    return "".join(pieces)


if __name__ == "__main__":
    main()
