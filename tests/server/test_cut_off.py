"""A real server that is told to stop while Redis is slow: the requests that it cuts off leave their records."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from rheostat_server.app import create_app
from rheostat_server.callers.book import Defaults
from rheostat_server.callers.shelf import Shelf
from rheostat_server.engines import EngineRequest
from rheostat_server.limits.shared import PREFIX
from rheostat_server.runtime import Runtime, admission_from
from rheostat_server.settings import Settings
from rheostat_server.sse import event
from tests.limits.redis_server import RedisServer
from tests.server.callers.files import LAB_KEY, POLICY, bearer, write
from tests.server.recording import RecordingEngine
from tools.processes import free_port, started, wait_until_ready

REQUESTS = 4
RATED = POLICY.replace("{requests_per_minute: 600}", "{tokens_per_minute: 1000000, parallel: 8}")
LONG = {"model": "demo", "messages": [{"role": "user", "content": "How do I repot a fern?"}],
        "n": 4, "max_tokens": 500, "temperature": 1.0, "ignore_eos": True}  # fmt: skip


@pytest.fixture
def redis_server(tmp_path: Path) -> Generator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@dataclass
class Endless(RecordingEngine):
    """Says one word again and again."""

    speaks: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        while True:
            yield event({"choices": [{"index": 0, "delta": {"content": "Yes. "}, "finish_reason": None}]})
            self.speaks.set()
            await asyncio.sleep(0.01)


async def test_the_log_is_open_until_those_that_are_cut_off_have_counted_and_given_back(
    runtime: Runtime, tmp_path: Path, redis_server: RedisServer
) -> None:
    """Under a server of ASGI 2.4, where a stream that is cancelled may wait for what it has yet to do."""
    audit, engine = tmp_path / "audit.jsonl", Endless()
    settings = Settings(audit=audit, limits_redis=SecretStr(redis_server.uri), limits_deadline=0.5)
    shelf = Shelf.read(write(tmp_path, RATED), Defaults())
    app = create_app(replace(runtime, engine=engine, shelf=shelf, admission=admission_from(settings)))

    async def newer(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(newer), base_url="http://test") as http:
        with ExitStack() as stack:
            async with app.router.lifespan_context(app):
                asking = http.post("/v1/chat/completions", json={**LONG, "stream": True}, headers=bearer(LAB_KEY))
                cut_off = asyncio.ensure_future(asking)
                await engine.speaks.wait()
                stack.enter_context(redis_server.stalled())
                cut_off.cancel()
        await asyncio.wait({cut_off})
    [record] = [json.loads(line) for line in audit.read_text().splitlines()]
    assert (record["caller"], record["outcome"]) == ("lab-app", "cancelled")
    assert record["usage"]["total_tokens"] > 0


def test_each_request_that_is_cut_off_leaves_its_record(tmp_path: Path, redis_server: RedisServer) -> None:
    audit, log, url = tmp_path / "audit.jsonl", tmp_path / "server.log", f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        "RHEOSTAT_AUDIT": str(audit),
        "RHEOSTAT_DRAIN_SECONDS": "0.2",
        "RHEOSTAT_LIMITS_REDIS": redis_server.uri,
        "RHEOSTAT_LIMITS_DEADLINE": "1.5",
    }

    def ask(stream: bool) -> None:
        with suppress(httpx.RemoteProtocolError, httpx.ReadError):
            httpx.post(
                f"{url}/v1/chat/completions", json={**LONG, "stream": stream}, headers=bearer(LAB_KEY), timeout=60
            )

    command: list[str | Path] = ["rheostat", "serve", "--policy", write(tmp_path, RATED), "--port", str(port)]
    with started(command, log=log, environment=environment) as process:
        wait_until_ready(process, f"{url}/ready", log=log)
        running = [threading.Thread(target=ask, args=[at % 2 == 0]) for at in range(REQUESTS)]
        for thread in running:
            thread.start()
        while redis_server.client.zcard(f"{PREFIX}:parallel/lab-app") < REQUESTS:
            time.sleep(0.01)
        with redis_server.stalled():
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) in (0, -signal.SIGTERM)
        for thread in running:
            thread.join()
    records = [json.loads(line) for line in audit.read_text().splitlines()]
    assert "requests are cut off" in log.read_text()
    assert "audit log" not in log.read_text()
    assert [record["caller"] for record in records] == ["lab-app"] * REQUESTS
    assert "answered" not in {record["outcome"] for record in records}
