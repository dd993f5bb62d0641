"""What RemoteEngine asks of its upstream at the start."""

import asyncio
from pathlib import Path

import orjson
import pytest
from pydantic import SecretStr

from rheostat_server.engines import EngineRequest
from rheostat_server.engines.remote import RemoteEngine, Upstream
from rheostat_server.errors import CannotStart
from tests.engines.remote.scripted import error, http, json, scripted

LOAD = "/v1/load_lora_adapter"
SEVERAL = json({"object": "list", "data": [{"id": "one"}, {"id": "two"}]})


async def test_the_models_are_those_of_the_upstream_without_its_adapters() -> None:
    async with scripted({}) as upstream:
        remote = await RemoteEngine.connect(Upstream(upstream.url))
    assert remote.models() == ["base"]


async def test_an_adapter_that_the_upstream_has_is_served() -> None:
    async with scripted({}) as upstream:
        remote = await RemoteEngine.connect(Upstream(upstream.url), adapters={"a@1": Path("/a")})
    assert list(remote.adapters) == ["a@1"]


async def test_a_missing_adapter_stops_the_start_and_the_message_tells_the_flag() -> None:
    async with scripted({}) as upstream:
        with pytest.raises(CannotStart, match=r"--lora-modules 'b@2=/my adapters/b'"):
            await RemoteEngine.connect(Upstream(upstream.url), adapters={"b@2": Path("/my adapters/b")})
    assert LOAD not in {asked.path for asked in upstream.asked}


async def test_a_missing_adapter_is_loaded_where_the_operator_asks_for_it() -> None:
    async with scripted({LOAD: http(200, b"Success", "text/plain")}) as upstream:
        await RemoteEngine.connect(Upstream(upstream.url), adapters={"b@2": Path("/b")}, load_adapters=True)
    assert orjson.loads(upstream.asked[-1].body) == {"lora_name": "b@2", "lora_path": "/b"}


@pytest.mark.parametrize("answer", [error(400, "rank too high"), http(404, b"rank too high", "text/plain")])
async def test_an_adapter_that_cannot_be_loaded_stops_the_start(answer: bytes) -> None:
    async with scripted({LOAD: answer}) as upstream:
        with pytest.raises(CannotStart, match=r"b@2.*VLLM_ALLOW_RUNTIME_LORA_UPDATING.*--lora-modules b@2=/b"):
            await RemoteEngine.connect(Upstream(upstream.url), adapters={"b@2": Path("/b")}, load_adapters=True)


async def test_a_model_that_the_upstream_lacks_stops_the_start() -> None:
    async with scripted({"/v1/models": SEVERAL}) as upstream:
        assert (await RemoteEngine.connect(Upstream(upstream.url), model="two")).models() == ["two"]
        assert (await RemoteEngine.connect(Upstream(upstream.url))).models() == ["one", "two"]
        with pytest.raises(CannotStart, match="no model 'three'; its models: one, two"):
            await RemoteEngine.connect(Upstream(upstream.url), model="three")


async def test_adapters_need_one_base_model() -> None:
    models = json({"data": [{"id": "one"}, {"id": "two"}, {"id": "a@1"}]})
    async with scripted({"/v1/models": models}) as upstream:
        adapters = {"a@1": Path("/a")}
        with pytest.raises(CannotStart, match="several models: one, two"):
            await RemoteEngine.connect(Upstream(upstream.url), adapters=adapters)
        await RemoteEngine.connect(Upstream(upstream.url), adapters=adapters, model="one")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (json({"data": []}), "lists no models"),
        (json([]), "no list of models"),
        (http(200, b"<html>", "text/html"), "content-type"),
        (error(401, "who are you"), "RHEOSTAT_UPSTREAM_API_KEY"),
        (b"", "without an answer"),
    ],
)
async def test_an_upstream_that_does_not_say_what_it_has_stops_the_start(answer: bytes, reason: str) -> None:
    async with scripted({"/v1/models": answer}) as upstream:
        with pytest.raises(CannotStart, match=reason):
            await RemoteEngine.connect(Upstream(upstream.url))


def test_an_engine_runs_on_another_loop_than_it_was_connected_on() -> None:
    async def serve() -> None:
        async with scripted({"/v1/chat/completions": json({"choices": [{"message": {}}]})}) as upstream:
            remote = await asyncio.to_thread(asyncio.run, RemoteEngine.connect(Upstream(upstream.url)))
            await remote.complete(EngineRequest({"model": "base", "messages": []}, "r1"))
            await remote.close()

    asyncio.run(serve())


@pytest.mark.parametrize(
    ("url", "api", "health"),
    [
        ("http://h:8001", "http://h:8001/v1", "http://h:8001/health"),
        ("http://h:8001/", "http://h:8001/v1", "http://h:8001/health"),
        ("http://h:8001/v1/", "http://h:8001/v1", "http://h:8001/health"),
        ("https://h/api/v1", "https://h/api/v1", "https://h/api/health"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai", None),
    ],
)
def test_an_upstream_is_found_by_its_url(url: str, api: str, health: str | None) -> None:
    upstream = Upstream(url)
    assert (upstream.api, upstream.health) == (api, health)


@pytest.mark.parametrize("url", ["", "h:8001", "ftp://h", "http://", "http://u:secret@h", "http://h?key=secret"])
def test_a_url_that_is_none_or_holds_a_secret_stops_the_start(url: str) -> None:
    with pytest.raises(CannotStart) as caught:
        Upstream(url)
    assert "secret" not in str(caught.value)


def test_an_upstream_does_not_show_its_key() -> None:
    assert "sk-1" not in repr(Upstream("http://h", SecretStr("sk-1")))
