"""A light caller's request that finds no room is urgent to the engine, its candidates too."""

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

import httpx
import pytest

from rheostat_server.admission import Admission
from rheostat_server.app import create_app
from rheostat_server.limits.fair_queue import FairQueue
from tests.reranking.rigs import Rig

CHAT: Final[dict[str, Any]] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


@pytest.mark.parametrize("control", [{"mode": "off"}, {"mode": "rerank", "candidates": 3}], ids=["off", "rerank"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("full", [False, True])
async def test_only_what_finds_no_room_is_urgent(control: dict[str, Any], *, stream: bool, full: bool) -> None:
    rig = Rig()
    queue = FairQueue(running=2, waiting=10, deadline=10, reserved=1)
    runtime = replace(rig.runtime(), admission=Admission(queue=queue))
    body = {**CHAT, "control": control, "stream": stream}
    async with AsyncExitStack() as stack:
        if full:
            await stack.enter_async_context(queue.turn("flood"))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(runtime)), base_url="http://test")
        response = await (await stack.enter_async_context(http)).post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    assert {request.urgent for request in rig.engine.asked} == {full}
