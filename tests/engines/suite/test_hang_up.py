"""A client that goes away frees all its candidates in the engine."""

import asyncio

import httpx
import pytest

from tests.engines.suite.served import Served


@pytest.mark.parametrize("n", [1, 4])
async def test_hanging_up_on_a_whole_answer_frees_the_request(idle: Served, freed_within: float, n: int) -> None:
    async with httpx.AsyncClient(base_url=idle.url, headers={"X-Control-Mode": "off"}) as http:
        asking = asyncio.ensure_future(http.post("/v1/chat/completions", json=idle.long_body(n=n)))
        await asyncio.to_thread(idle.wait_until_busy)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    await asyncio.to_thread(idle.wait_until_running, 0, within=freed_within)


@pytest.mark.parametrize("n", [1, 4])
def test_hanging_up_on_a_stream_frees_the_request(idle: Served, freed_within: float, n: int) -> None:
    body = idle.long_body(n=n, stream=True)
    with idle.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.iter_raw()  # a name of its own: httpx hangs up when it is collected
        next(chunks)
        idle.wait_until_busy()
    idle.wait_until_running(0, within=freed_within)


def test_a_stream_is_freed_while_another_goes_on(idle: Served) -> None:
    with idle.http() as http, http.stream("POST", "/v1/chat/completions", json=idle.long_body(stream=True)) as kept:
        events = kept.iter_lines()
        with http.stream("POST", "/v1/chat/completions", json=idle.long_body(stream=True)) as left:
            next(left.iter_raw())
        assert list(events)[-2] == "data: [DONE]"
    idle.wait_until_running(0)
