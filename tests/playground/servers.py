"""The servers that the browser visits, each a process of `rheostat serve`."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rheostat_server.callers.keys import digest_of
from tools.processes import Process, free_port, started, wait_until_ready

NARROW_KEY: Final = "narrow-key-that-only-tests-know"
STRICT_KEY: Final = "strict-key-that-only-tests-know"
THIRDS_KEY: Final = "thirds-key-that-only-tests-know"
POLICY: Final = f"""\
envelopes:
  narrow:
    safety: {{min: 0.6, max: 0.9, default: 0.8}}
    helpfulness: {{max: 0.5, default: 0.25}}
    modes: [adapter, adapter+rerank]
    candidates: 4
    max_tokens: 40
  strict:
    safety: {{default: 0.9, locked: true}}
    helpfulness: {{min: 0.5}}
    outside: reject
    rate: {{parallel: 1}}
  thirds:
    safety: {{min: 0.33334, max: 0.66666, default: 0.5}}
    helpfulness: {{min: 0.33334, max: 0.66666, default: 0.5}}
    outside: reject
keys:
  - {{name: narrow-app, sha256: "{digest_of(NARROW_KEY)}", envelope: narrow}}
  - {{name: strict-app, sha256: "{digest_of(STRICT_KEY)}", envelope: strict}}
  - {{name: thirds-app, sha256: "{digest_of(THIRDS_KEY)}", envelope: thirds}}
"""


@contextmanager
def serving(folder: Path, *options: str | Path, name: str = "server") -> Generator[tuple[Process, str]]:
    """A server with these options, until the block ends; it may not be ready yet, see `ready`."""
    port = free_port()
    command: Sequence[str | Path] = ["rheostat", "serve", "--port", str(port), *options]
    with started(command, log=folder / f"{name}.log", environment={"RHEOSTAT_THREADS": "1"}) as process:
        yield process, f"http://127.0.0.1:{port}"


def ready(folder: Path, process: Process, url: str, *, name: str = "server") -> str:
    """The server's URL, once it can answer."""
    wait_until_ready(process, f"{url}/ready", log=folder / f"{name}.log")
    return url
