"""An upstream that loses an adapter which it had at the start, as one does that is started again."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from rheostat_server.adapters import load_adapter
from rheostat_server.engines import DONE, EngineRequest
from rheostat_server.engines.remote import RemoteEngine, Upstream
from rheostat_server.errors import EngineUnavailable
from tests.engines.remote.scripted import Asked, error, events, http, json, scripted
from tests.tiny import TinyAdapter

CHAT: Final = "/v1/chat/completions"
LOAD: Final = "/v1/load_lora_adapter"
COMPLETION: Final = {"id": "1", "choices": [{"index": 0, "message": {"content": "x"}}]}
CHUNK: Final = b'data: {"id":"1","choices":[{"delta":{"content":"x"}}]}\n\n'


@dataclass(slots=True)
class Forgetful:
    """An upstream that knows what it was told to load; `takes` says whether it does so."""

    known: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)
    takes: bool = True

    def models(self, asked: Asked) -> bytes:
        return json({"data": [{"id": "base"}, *({"id": name, "parent": "base"} for name in self.known)]})

    def load(self, asked: Asked) -> bytes:
        name = orjson.loads(asked.body)["lora_name"]
        self.loaded.append(name)
        if not self.takes:
            return error(400, "rank too high")
        self.known.add(name)
        return http(200, b"Success", "text/plain")

    def answer(self, asked: Asked) -> bytes:
        body = orjson.loads(asked.body)
        if body["model"] not in {"base", *self.known}:
            message = f"The model `{body['model']}` does not exist."
            return error(404, message, type="NotFoundError", param="model", code=404)
        return events(CHUNK, DONE) if body["stream"] else json(COMPLETION)


@pytest.fixture
def folder(tiny_adapters: list[TinyAdapter], tmp_path: Path) -> Path:
    """A copy of an adapter's folder, to be spoilt."""
    copy = tmp_path / "adapter"
    copy.mkdir()
    for path in Path(tiny_adapters[0].folder).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@asynccontextmanager
async def connected(
    upstream: Forgetful, folder: Path, *, load: bool = True
) -> AsyncGenerator[tuple[RemoteEngine, EngineRequest], None]:
    """An engine that found its adapter in the upstream, and a request for the adapter."""
    address = load_adapter(folder, base_digest=None).id
    upstream.known.add(address)
    answers: dict[str, Callable[[Asked], bytes]] = {
        "/v1/models": upstream.models, LOAD: upstream.load, CHAT: upstream.answer,
    }  # fmt: skip
    async with scripted(answers) as server:
        remote = await RemoteEngine.connect(Upstream(server.url), adapters={address: folder}, load_adapters=load)
        try:
            yield remote, EngineRequest({"model": address, "messages": []}, "r1")
        finally:
            await remote.close()


async def whole(remote: RemoteEngine, request: EngineRequest) -> Any:
    return await remote.complete(request)


async def streamed(remote: RemoteEngine, request: EngineRequest) -> bytes:
    return b"".join([chunk async for chunk in remote.stream(request)])


@pytest.mark.parametrize(("ask", "answer"), [(whole, COMPLETION), (streamed, CHUNK + DONE)])
async def test_it_is_loaded_again_by_the_first_request_for_it(folder: Path, ask: Any, answer: Any) -> None:
    upstream = Forgetful()
    async with connected(upstream, folder) as (remote, request):
        upstream.known.clear()
        assert await ask(remote, request) == answer
        assert await ask(remote, request) == answer
    assert upstream.loaded == list(remote.adapters)


async def test_requests_at_once_have_it_loaded_once(folder: Path) -> None:
    upstream = Forgetful()
    async with connected(upstream, folder) as (remote, request):
        upstream.known.clear()
        answers = await asyncio.gather(*(remote.complete(request) for _ in range(8)))
    assert len(answers) == 8
    assert upstream.loaded == list(remote.adapters)


async def test_a_probe_has_it_loaded_again(folder: Path) -> None:
    upstream = Forgetful()
    async with connected(upstream, folder) as (remote, _):
        upstream.known.clear()
        await remote.check_ready()
    assert upstream.known == set(remote.adapters)


@pytest.mark.parametrize("ask", [whole, streamed])
async def test_without_leave_to_load_it_is_503_and_not_the_callers_fault(folder: Path, ask: Any) -> None:
    upstream = Forgetful()
    async with connected(upstream, folder, load=False) as (remote, request):
        upstream.known.clear()
        with pytest.raises(EngineUnavailable, match=r"no longer has .* does not exist"):
            await ask(remote, request)
        with pytest.raises(EngineUnavailable, match="no longer has"):
            await remote.check_ready()
    assert upstream.loaded == []


def deleted(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def replaced(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")


@pytest.mark.parametrize("spoil", [deleted, replaced])
async def test_a_folder_that_is_no_longer_the_same_is_not_loaded(folder: Path, spoil: Callable[[Path], None]) -> None:
    upstream = Forgetful()
    async with connected(upstream, folder) as (remote, request):
        upstream.known.clear()
        spoil(folder)
        with pytest.raises(EngineUnavailable, match=f"{folder} no longer holds it"):
            await remote.complete(request)
    assert upstream.loaded == []


async def test_an_upstream_that_does_not_take_it_again_says_why(folder: Path) -> None:
    upstream = Forgetful(takes=False)
    async with connected(upstream, folder) as (remote, request):
        upstream.known.clear()
        with pytest.raises(EngineUnavailable, match="rank too high"):
            await remote.complete(request)
