"""Blends on an upstream: written where it can read them, loaded by its API, and loaded again where it has lost them."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from rheostat_server import serve
from rheostat_server.blending.store import BlendStore, load_blends
from rheostat_server.contract.dials import Dials
from rheostat_server.engines import EngineRequest
from rheostat_server.engines.blend_files import BlendFiles
from rheostat_server.engines.plain_lora import read_plain_lora
from rheostat_server.engines.remote import RemoteEngine, Upstream, UpstreamBlends
from rheostat_server.errors import CannotStart, EngineRejected, EngineUnavailable, RheostatError
from rheostat_server.settings import Settings
from tests.blends import TinyBlend
from tests.engines.remote.scripted import Asked, error, http, json, scripted

DONE: Final = http(200, b"Success", "text/plain")
COMPLETION: Final = {"id": "1", "choices": [{"index": 0, "message": {"content": "x"}}]}


@dataclass(slots=True)
class Updatable:
    """An upstream vLLM that loads and unloads what it is told to, as long as it `takes` and `unloads` anything.

    One that is `garbled` loads, and says what is no HTTP.
    """

    known: dict[str, Path] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    takes: bool = True
    unloads: bool = True
    garbled: bool = False

    def models(self, asked: Asked) -> bytes:
        return json({"data": [{"id": "base"}, *({"id": name, "parent": "base"} for name in self.known)]})

    def load(self, asked: Asked) -> bytes:
        body = orjson.loads(asked.body)
        if not self.takes or body["lora_name"] in self.known:
            return error(400, "it takes no such adapter")
        read_plain_lora(Path(body["lora_path"]))
        self.known[body["lora_name"]] = Path(body["lora_path"])
        self.told.append(f"+{body['lora_name']}")
        return b"garbled" if self.garbled else DONE

    def unload(self, asked: Asked) -> bytes:
        name = orjson.loads(asked.body)["lora_name"]
        if not self.unloads:
            return error(500, "it unloads nothing")
        if self.known.pop(name, None) is None:
            return error(404, "no such adapter")
        self.told.append(f"-{name}")
        return DONE

    def answer(self, asked: Asked) -> bytes:
        model = orjson.loads(asked.body)["model"]
        if model not in {"base", *self.known}:
            return error(404, f"The model `{model}` does not exist.", type="NotFoundError", param="model", code=404)
        return json(COMPLETION)


@pytest.fixture
def blends(tiny_blend: TinyBlend) -> BlendStore:
    return load_blends([tiny_blend.folder], base_digest=None)


@asynccontextmanager
async def connected(upstream: Updatable, blends: BlendStore, folder: Path) -> AsyncGenerator[RemoteEngine, None]:
    answers: dict[str, Callable[[Asked], bytes]] = {
        "/v1/models": upstream.models, "/v1/load_lora_adapter": upstream.load,
        "/v1/unload_lora_adapter": upstream.unload, "/v1/chat/completions": upstream.answer,
    }  # fmt: skip
    async with scripted(answers) as server:
        shared = UpstreamBlends(BlendFiles.within(folder, for_others=True), room=2)
        remote = await RemoteEngine.connect(Upstream(server.url), blends=shared, trials=blends.trials())
        try:
            yield remote
        finally:
            await remote.close()


def point(blends: BlendStore, safety: float) -> Any:
    return blends.blends[0].at(Dials(safety=safety, helpfulness=1), {})


def asking(address: str) -> EngineRequest:
    return EngineRequest({"model": address, "messages": []}, "r1")


async def test_the_start_loads_one_to_try_and_unloads_it(blends: BlendStore, tmp_path: Path) -> None:
    upstream = Updatable()
    async with connected(upstream, blends, tmp_path) as remote:
        [tried] = blends.trials()
        assert upstream.told == [f"+{tried}", f"-{tried}"]
        assert remote.blend_room == 2
    assert list(tmp_path.iterdir()) == [], "the files go with the server"


async def test_an_upstream_that_takes_none_stops_the_start(blends: BlendStore, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or let it see that folder"):
        async with connected(Updatable(takes=False), blends, tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_a_blend_is_asked_for_by_its_address_until_it_is_unloaded(blends: BlendStore, tmp_path: Path) -> None:
    upstream, one = Updatable(), point(blends, 1)
    async with connected(upstream, blends, tmp_path) as remote:
        await remote.load_blend(one.address, one.parts)
        assert upstream.known[one.address].parent.parent == tmp_path
        assert await remote.complete(asking(one.address)) == COMPLETION
        await remote.unload_blend(one.address)
        await remote.unload_blend(one.address)
        with pytest.raises((EngineRejected, EngineUnavailable)):
            await remote.complete(asking(one.address))


async def test_one_that_the_upstream_has_lost_is_loaded_again_by_the_first_request(
    blends: BlendStore, tmp_path: Path
) -> None:
    upstream, one, other = Updatable(), point(blends, 1), point(blends, 0)
    async with connected(upstream, blends, tmp_path) as remote:
        for each in (one, other):
            await remote.load_blend(each.address, each.parts)
        upstream.known.clear()
        assert await remote.complete(asking(one.address)) == COMPLETION
        assert set(upstream.known) == {one.address}
        assert await remote.complete(asking(other.address)) == COMPLETION


async def test_requests_at_once_that_find_a_lost_one_have_it_loaded_once(blends: BlendStore, tmp_path: Path) -> None:
    upstream, one = Updatable(), point(blends, 1)
    async with connected(upstream, blends, tmp_path) as remote:
        await remote.load_blend(one.address, one.parts)
        upstream.known.clear()
        upstream.told.clear()
        await asyncio.gather(*(remote.complete(asking(one.address)) for _ in range(5)))
        assert upstream.told == [f"+{one.address}"]


async def test_while_others_come_and_go_a_lost_one_is_restored_and_none_that_was_unloaded(
    blends: BlendStore, tmp_path: Path
) -> None:
    upstream, one, other, third = Updatable(), *(point(blends, safety) for safety in (1, 0, 0.5))
    async with connected(upstream, blends, tmp_path) as remote:
        for each in (one, other):
            await remote.load_blend(each.address, each.parts)
        upstream.known.clear()
        answers = await asyncio.gather(
            remote.complete(asking(one.address)),
            remote.unload_blend(other.address),
            remote.load_blend(third.address, third.parts),
            remote.complete(asking(one.address)),
        )
        assert answers[0] == answers[3] == COMPLETION
        assert set(upstream.known) == {one.address, third.address}


async def test_at_the_end_no_name_is_left_whose_files_are_gone(blends: BlendStore, tmp_path: Path) -> None:
    upstream, one, other = Updatable(), point(blends, 1), point(blends, 0)
    async with connected(upstream, blends, tmp_path) as remote:
        for each in (one, other):
            await remote.load_blend(each.address, each.parts)
        upstream.unloads = False
        await remote.close()
        assert list(tmp_path.iterdir()) == [], "an upstream that refuses does not keep the server from its end"
        upstream.unloads = True
    async with connected(upstream, blends, tmp_path) as remote:
        await remote.load_blend(one.address, one.parts)
        await remote.load_blend(other.address, other.parts)
    assert upstream.known == {}


async def test_a_load_whose_end_nobody_saw_is_unloaded_at_the_end(blends: BlendStore, tmp_path: Path) -> None:
    upstream, one = Updatable(), point(blends, 1)
    async with connected(upstream, blends, tmp_path) as remote:
        upstream.garbled = True
        with pytest.raises(RheostatError):
            await remote.load_blend(one.address, one.parts)
        assert set(upstream.known) == {one.address}
        upstream.garbled = False
    assert upstream.known == {}


async def test_one_that_another_server_left_there_is_replaced(blends: BlendStore, tmp_path: Path) -> None:
    upstream, one = Updatable(), point(blends, 1)
    async with connected(upstream, blends, tmp_path) as remote:
        upstream.known[one.address] = tmp_path / "gone"
        await remote.load_blend(one.address, one.parts)
        assert upstream.known[one.address].is_dir()


async def test_one_that_is_not_taken_is_an_error_that_tells_callers_nothing_of_the_upstream(
    blends: BlendStore, tmp_path: Path
) -> None:
    upstream, one = Updatable(), point(blends, 1)
    async with connected(upstream, blends, tmp_path) as remote:
        upstream.takes = False
        with pytest.raises(EngineUnavailable) as refused:
            await remote.load_blend(one.address, one.parts)
        assert refused.value.message == f"the upstream server does not load the blend {one.address}"
        assert "takes no such adapter" in refused.value.logged


def test_without_a_folder_that_both_see_the_start_is_refused(tiny_blend: TinyBlend) -> None:
    settings = Settings(engine="remote", upstream="http://127.0.0.1:1", blends=[tiny_blend.folder])
    with pytest.raises(CannotStart, match="RHEOSTAT_BLEND_FOLDER"):
        serve.start(settings, engine_flags=[])


def test_a_folder_that_cannot_be_written_is_refused(tiny_blend: TinyBlend, tmp_path: Path) -> None:
    upstream, folder = "http://127.0.0.1:1", tmp_path / "none"
    settings = Settings(engine="remote", upstream=upstream, blends=[tiny_blend.folder], blend_folder=folder)
    with pytest.raises(CannotStart, match="blends cannot be written to"):
        serve.start(settings, engine_flags=[])
