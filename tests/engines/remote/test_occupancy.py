"""How full the upstream is: its own figures where it shows them, and never at the cost of a request."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from rheostat_server.engines import Occupancy
from rheostat_server.engines.remote import Upstream, occupancy
from rheostat_server.engines.remote.occupancy import UpstreamOccupancy
from tests.engines.remote.scripted import Asked, http, scripted

METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="base"} 3.0
vllm:num_requests_running{engine="1",model_name="base"} 4.0
vllm:num_requests_waiting{engine="0",model_name="base"} 2.0
vllm:num_requests_waiting{engine="1",model_name="base"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="base",reason="capacity"} 9.0
"""


def shown(metrics: str) -> bytes:
    return http(200, metrics.encode(), "text/plain; version=0.0.4")


async def told(upstream: UpstreamOccupancy, *, at_once: int = 1) -> list[Occupancy]:
    """What so many requests at once are told."""
    async with upstream.upstream.client() as client:
        return await asyncio.gather(*(upstream.now(client) for _ in range(at_once)))


@asynccontextmanager
async def dripping() -> AsyncGenerator[str, None]:
    """The URL of a server that sends a byte at a time, until its one caller leaves."""
    left = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"#")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        left.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await left.wait()


async def test_the_figures_of_all_replicas_are_added_up() -> None:
    async with scripted({"/metrics": shown(METRICS)}) as server:
        assert await told(UpstreamOccupancy(Upstream(server.url), 16)) == [Occupancy(running=7, waiting=2, room=16)]


async def test_what_we_wait_for_counts_where_it_is_more() -> None:
    async with scripted({"/metrics": shown(METRICS)}) as server:
        upstream = UpstreamOccupancy(Upstream(server.url), 16)
        with upstream.counted(20):
            assert await told(upstream) == [Occupancy(running=16, waiting=4, room=16)]
        assert await told(upstream) == [Occupancy(running=7, waiting=2, room=16)]


async def test_requests_at_once_ask_once() -> None:
    async with scripted({"/metrics": shown(METRICS)}) as server:
        upstream = UpstreamOccupancy(Upstream(server.url), 16)
        await told(upstream, at_once=8)
        await told(upstream)
    assert len(server.asked) == 1


async def test_figures_are_asked_for_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "ASK_AGAIN_SECONDS", 0)
    values = iter((1, 5))

    def metrics(asked: Asked) -> bytes:
        return shown(f"vllm:num_requests_running {next(values)}\n")

    async with scripted({"/metrics": metrics}) as server:
        upstream = UpstreamOccupancy(Upstream(server.url), 16)
        assert [(await told(upstream))[0].running for _ in range(2)] == [1, 5]


@pytest.mark.parametrize(
    "answer",
    [
        http(404, b"Not Found", "text/plain"),
        http(500, METRICS.encode(), "text/plain"),
        shown("python_info 1\n"),
        shown("vllm:num_requests_running 1.2.3\nvllm:num_requests_waiting NaN\nvllm:num_requests_waiting e+\n"),
        http(200, b"\xff\xfe\x00", "application/octet-stream"),
        b"no HTTP at all",
    ],
    ids=["none", "failing", "others", "no numbers", "bytes", "no HTTP"],
)
async def test_a_server_that_does_not_tell_is_as_full_as_we_made_it_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(occupancy, "ASK_AGAIN_SECONDS", 0)
    async with scripted({"/metrics": answer}) as server:
        upstream = UpstreamOccupancy(Upstream(server.url), 16)
        with upstream.counted(3):
            for _ in range(3):
                assert await told(upstream) == [Occupancy(running=3, waiting=0, room=16)]
    assert len(server.asked) == 1


async def test_a_server_that_is_gone_is_as_full_as_we_made_it() -> None:
    async with scripted({}) as server:
        url = server.url
    assert await told(UpstreamOccupancy(Upstream(url), 16)) == [Occupancy(running=0, waiting=0, room=16)]


async def test_a_silent_server_delays_one_request_by_our_patience_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "PATIENCE_SECONDS", 0.2)
    async with scripted({"/metrics": b""}, stays=True) as server:
        await check_patience(server.url)


async def test_a_server_that_is_never_done_does_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupancy, "PATIENCE_SECONDS", 0.2)
    async with dripping() as url:
        await check_patience(url)


async def check_patience(url: str) -> None:
    upstream = UpstreamOccupancy(Upstream(url), 16)
    begun = time.monotonic()
    assert await told(upstream, at_once=4) == [Occupancy(running=0, waiting=0, room=16)] * 4
    assert 0.2 <= time.monotonic() - begun < 1
    begun = time.monotonic()
    await told(upstream)
    assert time.monotonic() - begun < 0.2


async def test_only_a_server_of_vllms_kind_is_asked() -> None:
    async with scripted({}) as server:
        assert await told(UpstreamOccupancy(Upstream(f"{server.url}/openai"), 16)) == [Occupancy(0, 0, 16)]
    assert server.asked == []
