"""What the app does differently behind Ray's proxy."""

import traceback

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from rheostat_server.adapters import AdapterStore
from rheostat_server.app import create_app
from rheostat_server.contract.wordings import default_wordings
from rheostat_server.plan import Means
from rheostat_server.ray_serve.behind_proxy import BehindProxy, Bug
from rheostat_server.runtime import Runtime
from tests.server.recording import RecordingEngine

WRITTEN = "what-somebody-wrote"


async def test_the_proxy_alone_says_the_id_of_a_request() -> None:
    runtime = Runtime(engine=RecordingEngine(), means=Means(AdapterStore(), default_wordings()))
    transport = httpx.ASGITransport(BehindProxy(create_app(runtime)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        response = await http.get("/v1/models", headers={"X-Request-ID": "fern-1"})
    assert response.status_code == 200
    assert "X-Request-ID" not in response.headers


async def test_what_is_raised_says_nothing_of_what_people_wrote() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError(WRITTEN)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(BehindProxy(broken)), base_url="http://test") as http:
        with pytest.raises(Bug) as told:
            await http.get("/")
    assert str(told.value) == "ValueError"
    assert WRITTEN not in "".join(traceback.format_exception(told.value))
