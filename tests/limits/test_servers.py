"""Two servers with one Redis: a caller has its rates once, whichever server it asks."""

from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.limits.redis_server import RedisServer
from tests.server.callers.files import KIDS_KEY, LAB_KEY, POLICY, bearer, write
from tools.processes import Process, free_port, started, wait_until_ready

PER_MINUTE = 5
LIMITED = POLICY.replace("requests_per_minute: 600", f"requests_per_minute: {PER_MINUTE}")
CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
Servers = list[tuple[Process, str]]


@pytest.fixture
def servers(redis_server: RedisServer, tmp_path: Path) -> Generator[Servers]:
    """Each with the same policy file and the same Redis."""
    policy, environment = write(tmp_path, LIMITED), {"RHEOSTAT_LIMITS_REDIS": redis_server.uri}
    ports = free_port(), free_port()
    logs = [tmp_path / f"{port}.log" for port in ports]
    commands: list[list[str | Path]] = [
        ["rheostat", "serve", "--policy", policy, "--port", str(port)] for port in ports
    ]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started(command, log=log, environment=environment))
            for command, log in zip(commands, logs, strict=True)
        ]
        for process, url, log in zip(processes, urls, logs, strict=True):
            wait_until_ready(process, f"{url}/ready", log=log)
        yield list(zip(processes, urls, strict=True))


def ask(url: str, key: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=bearer(key), timeout=60)


def test_two_servers_count_a_callers_requests_together_and_one_goes_on_when_the_other_is_killed(
    servers: Servers,
) -> None:
    urls = [url for _, url in servers]
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda at: ask(urls[at % 2], LAB_KEY), range(4 * PER_MINUTE)))
    assert Counter(answer.status_code for answer in answers) == {200: PER_MINUTE, 429: 3 * PER_MINUTE}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    process, _ = servers[0]
    process.kill()
    process.wait()
    assert ask(urls[1], LAB_KEY).status_code == 429
    assert ask(urls[1], KIDS_KEY).status_code == 200
