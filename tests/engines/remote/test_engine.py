"""RemoteEngine in front of a server that says what a test tells it to."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from pydantic import SecretStr

from rheostat_server.engines import DONE, EngineRequest
from rheostat_server.engines.remote import RemoteEngine, Upstream
from rheostat_server.errors import (
    ContextOverflow,
    EngineFailed,
    EngineRejected,
    EngineUnavailable,
    RheostatError,
)
from tests.engines.remote.scripted import error, events, http, json, scripted

CHAT: Final = "/v1/chat/completions"
KEY: Final = "sk-very-secret"
COMPLETION: Final[Mapping[str, Any]] = {"id": "1", "choices": [{"index": 0, "message": {"content": "é"}}]}
CHUNK: Final = 'data: {"id":"1","choices":[{"delta":{"content":"data: {\\"error\\": é"}}]}\n\n'.encode()


def request(**fields: Any) -> EngineRequest:
    headers = {"traceparent": "00-a-b-01", "x-tenant": "t", "cookie": "c", "authorization": "Bearer caller"}
    return EngineRequest({"model": "base", "messages": [], **fields}, "r1", headers)


@asynccontextmanager
async def engine(url: str, *, timeout: float = 5) -> AsyncGenerator[RemoteEngine, None]:
    remote = RemoteEngine(Upstream(url, SecretStr(KEY), timeout), ["base"], {"a@1": Path("/a")})
    yield remote
    await remote.close()


async def failures(answer: bytes, *, timeout: float = 5, stays: bool = False) -> list[RheostatError]:
    """What a whole answer and a stream raise, the stream with the first event."""
    async with scripted({CHAT: answer}, stays=stays) as upstream, engine(upstream.url, timeout=timeout) as remote:
        with pytest.raises(RheostatError) as whole:
            await remote.complete(request())
        with pytest.raises(RheostatError) as streamed:
            await anext(remote.stream(request()))
    return [whole.value, streamed.value]


async def passed_and_failure(answer: bytes, *, timeout: float = 5, stays: bool = False) -> tuple[bytes, RheostatError]:
    """The bytes of a stream up to its failure, and the failure."""
    passed = bytearray()

    async def read(remote: RemoteEngine) -> None:
        async for chunk in remote.stream(request()):
            passed.extend(chunk)

    async with scripted({CHAT: answer}, stays=stays) as upstream, engine(upstream.url, timeout=timeout) as remote:
        with pytest.raises(RheostatError) as caught:
            await read(remote)
    return bytes(passed), caught.value


async def test_a_whole_answer_is_the_upstreams() -> None:
    async with scripted({CHAT: json(COMPLETION)}) as upstream, engine(upstream.url) as remote:
        assert await remote.complete(request(temperature=0)) == COMPLETION
    sent = orjson.loads(upstream.asked[0].body)
    assert sent == {"model": "base", "messages": [], "temperature": 0, "stream": False}


async def test_a_streams_bytes_pass_unread() -> None:
    async with (
        scripted({CHAT: events(CHUNK, CHUNK[:20], CHUNK[20:], DONE)}) as upstream,
        engine(upstream.url) as remote,
    ):
        passed = [chunk async for chunk in remote.stream(request())]
    assert b"".join(passed) == CHUNK + CHUNK + DONE
    assert orjson.loads(upstream.asked[0].body)["stream"] is True


async def test_only_headers_on_the_list_go_upstream_with_this_servers_key() -> None:
    async with scripted({CHAT: json(COMPLETION)}) as upstream, engine(upstream.url) as remote:
        await remote.complete(request())
    sent = upstream.asked[0].headers
    assert sent["authorization"] == f"Bearer {KEY}"
    assert (sent["x-request-id"], sent["traceparent"]) == ("r1", "00-a-b-01")
    assert "x-tenant" not in sent
    assert "cookie" not in sent


async def test_a_request_id_of_any_letters_goes_upstream() -> None:
    async with scripted({CHAT: json(COMPLETION)}) as upstream, engine(upstream.url) as remote:
        await remote.complete(EngineRequest({"model": "base", "messages": []}, "é"))
    assert upstream.asked[0].headers["x-request-id"] == "é"


async def test_streams_one_after_another_share_a_connection() -> None:
    async with scripted({CHAT: events(CHUNK, DONE)}) as upstream, engine(upstream.url) as remote:
        for _ in range(3):
            async with aclosing(remote.stream(request())) as chunks:
                async for chunk in chunks:
                    if chunk.endswith(DONE):
                        break
        await remote.close()
    assert len(upstream.asked) == 3
    assert len(upstream.connections) == 1


async def test_a_stream_whose_connection_stays_open_after_its_last_event_ends() -> None:
    answer = events(CHUNK, DONE, ended=False)
    async with scripted({CHAT: answer}, stays=True) as upstream, engine(upstream.url) as remote:
        passed = [chunk async for chunk in remote.stream(request())]
    assert b"".join(passed) == CHUNK + DONE


async def test_a_refusal_keeps_status_message_and_field() -> None:
    answer = error(422, "temperature must be 0 to 2", type="bad", code="range", param="temperature")
    for failure in await failures(answer):
        assert isinstance(failure, EngineRejected)
        assert (failure.status, failure.message) == (422, "temperature must be 0 to 2")
        assert (failure.type, failure.code, failure.param) == ("bad", "range", "temperature")


async def test_too_many_requests_says_when_to_come_back() -> None:
    answer = json({"error": {"message": "slow down", "type": "rate_limit"}}, 429, retry_after="7")
    for failure in await failures(answer):
        assert (failure.status, failure.headers) == (429, {"Retry-After": "7"})


@pytest.mark.parametrize("parts", [{"code": "context_length_exceeded"}, {"param": "input_tokens", "code": 400}])
async def test_a_context_overflow_is_known_as_one(parts: dict[str, Any]) -> None:
    for failure in await failures(error(400, "too long", **parts)):
        assert isinstance(failure, ContextOverflow)
        assert failure.message == "too long"


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_an_unavailable_upstream_is_503(status: int) -> None:
    for failure in await failures(error(status, "starting")):
        assert isinstance(failure, EngineUnavailable)
        assert "starting" in failure.message


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(error(500, "oops"), id="an error of its own"),
        pytest.param(http(302, b"", location="/elsewhere"), id="a redirect"),
        pytest.param(http(404, b"Not Found", "text/plain"), id="no such route"),
        pytest.param(json({"detail": "Not Found"}, 404), id="no such route of FastAPI"),
        pytest.param(http(200, b"<html>", "text/html"), id="a page"),
        pytest.param(http(200, b"", "text/event-stream"), id="nothing"),
        pytest.param(json(["choices"]), id="a list"),
        pytest.param(json({"choices": []}), id="no choices"),
        pytest.param(json({"choices": [{"text": "a"}]}), id="no message"),
        pytest.param(json({"error": {"message": "overloaded"}, "choices": None}), id="an error under status 200"),
        pytest.param(http(200, b"{", "application/json"), id="half of JSON"),
        pytest.param(http(200, b"{}", "application/json", content_encoding="gzip"), id="no gzip"),
    ],
)
async def test_what_is_no_answer_is_502(answer: bytes) -> None:
    for failure in await failures(answer):
        assert isinstance(failure, EngineFailed), failure
        assert failure.message


async def test_a_refused_key_is_the_operators_fault_and_is_not_told() -> None:
    for failure in await failures(error(401, f"Incorrect key {KEY}")):
        assert isinstance(failure, EngineFailed)
        assert "RHEOSTAT_UPSTREAM_API_KEY" in failure.message
        assert KEY not in failure.message


async def test_an_error_that_repeats_the_key_is_told_without_it() -> None:
    for failure in await failures(error(403, f"{KEY} may not do this")):
        assert failure.message == "*** may not do this"


async def test_an_upstream_that_is_not_there_is_503() -> None:
    async with scripted({}) as upstream:
        pass
    async with engine(upstream.url) as remote:
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await remote.complete(request())
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await anext(remote.stream(request()))
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await remote.check_ready()


async def test_an_upstream_that_closes_the_connection_without_an_answer_is_503() -> None:
    for failure in await failures(b""):
        assert isinstance(failure, EngineUnavailable)
        assert "without an answer" in failure.message


async def test_an_upstream_that_is_silent_for_too_long_is_503() -> None:
    for failure in await failures(b"", timeout=0.1, stays=True):
        assert isinstance(failure, EngineUnavailable)
        assert "silent" in failure.message


async def test_half_a_stream_is_no_answer() -> None:
    passed, failure = await passed_and_failure(events(CHUNK, ended=False))
    assert passed == CHUNK
    assert isinstance(failure, EngineFailed)


async def test_a_stream_that_ends_without_its_last_event_is_no_answer() -> None:
    passed, failure = await passed_and_failure(events(CHUNK))
    assert passed == CHUNK
    assert isinstance(failure, EngineFailed)
    assert "[DONE]" in failure.message


async def test_a_stream_that_falls_silent_fails() -> None:
    passed, failure = await passed_and_failure(events(CHUNK, ended=False), timeout=0.1, stays=True)
    assert passed == CHUNK
    assert isinstance(failure, EngineUnavailable)


@pytest.mark.parametrize("cut", [1, 5, 12, 20, 40])
@pytest.mark.parametrize("data", [b'data: {"error": ', b'data:{ "error":'])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n\ndata: [DONE]\n\n"])
async def test_an_error_event_is_raised_in_its_place_however_it_is_cut(cut: int, data: bytes, end: bytes) -> None:
    told = data + b'{"message": "out of memory", "code": 500}}' + end
    passed, failure = await passed_and_failure(events(CHUNK, told[:cut], told[cut:]))
    assert passed == CHUNK
    assert isinstance(failure, EngineFailed)
    assert "out of memory" in failure.message


@pytest.mark.parametrize(
    "data", [b'data: {"choices":[{"delta":{},"finish_reason":"abort"}]}', b'data:{"finish_reason": "abort"}']
)
@pytest.mark.parametrize("cut", [1, 20, 30])
async def test_a_stream_that_the_upstream_gave_up_is_no_answer(data: bytes, cut: int) -> None:
    spoken = CHUNK.replace(b"\xc3\xa9", rb"\"finish_reason\":\"abort\"")
    told = data + b"\n\n" + DONE
    passed, failure = await passed_and_failure(events(spoken, told[:cut], told[cut:]))
    assert passed == spoken
    assert isinstance(failure, EngineUnavailable)


async def test_a_whole_answer_that_the_upstream_gave_up_is_none() -> None:
    answer = {"choices": [{**COMPLETION["choices"][0], "finish_reason": reason} for reason in ("stop", "abort")]}
    async with scripted({CHAT: json(answer)}) as upstream, engine(upstream.url) as remote:
        with pytest.raises(EngineUnavailable, match="gave the request up"):
            await remote.complete(request(n=2))


@pytest.mark.parametrize("ended", [False, True])
async def test_half_an_event_is_not_told(ended: bool) -> None:
    passed, failure = await passed_and_failure(events(CHUNK + CHUNK[:9], CHUNK[9:20], ended=ended))
    assert passed == CHUNK
    assert isinstance(failure, EngineFailed)


@pytest.mark.parametrize("last", [b"data: [DONE]\r\n\r\n", b"data:[DONE]\n\n", b"data: [DONE]\n", b"data: [DONE]"])
async def test_lines_may_end_as_they_do_elsewhere(last: bytes) -> None:
    chunk = CHUNK.replace(b"\n", b"\r\n")
    answer = events(chunk[:30], chunk[30:-1], chunk[-1:] + last)
    async with scripted({CHAT: answer}) as upstream, engine(upstream.url) as remote:
        passed = [part async for part in remote.stream(request())]
    assert b"".join(passed) == chunk + last


async def test_an_error_event_that_comes_first_is_raised_before_anything_is_told() -> None:
    passed, failure = await passed_and_failure(events(b'data: {"error": "no"}\n\n', DONE))
    assert passed == b""
    assert isinstance(failure, EngineFailed)


async def test_closing_a_stream_hangs_up_on_the_upstream() -> None:
    answer = events(CHUNK, ended=False)
    async with scripted({CHAT: answer}, stays=True) as upstream, engine(upstream.url) as remote:
        async with aclosing(remote.stream(request())) as chunks:
            assert await anext(chunks) == CHUNK
        await asyncio.wait_for(upstream.hung_up.wait(), 2)


async def test_cancelling_a_whole_answer_hangs_up_on_the_upstream() -> None:
    async with scripted({CHAT: b""}, stays=True) as upstream, engine(upstream.url) as remote:
        asking = asyncio.ensure_future(remote.complete(request()))
        while not upstream.asked:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait_for(upstream.hung_up.wait(), 2)


async def test_an_upstream_that_is_well_is_ready_and_asked_once_a_second_at_most() -> None:
    async with scripted({}) as upstream, engine(upstream.url) as remote:
        await remote.check_ready()
        await remote.check_ready()
    assert [asked.path for asked in upstream.asked] == ["/health", "/v1/models"]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"/health": http(503, b"")}, "503"),
        ({"/v1/models": error(500, "no")}, "500"),
        ({"/v1/models": json({"data": [{"id": "base"}]})}, "no longer has a@1"),
        ({"/v1/models": json({"data": "base"})}, "no list of models"),
    ],
)
async def test_an_upstream_that_is_not_well_is_not_ready(answers: dict[str, bytes], reason: str) -> None:
    async with scripted(answers) as upstream, engine(upstream.url) as remote:
        with pytest.raises(EngineUnavailable, match=reason):
            await remote.check_ready()


async def test_a_server_without_a_health_route_can_be_ready() -> None:
    async with scripted({"/health": http(404, b"")}) as upstream, engine(upstream.url) as remote:
        await remote.check_ready()


async def test_an_engine_can_be_closed_twice() -> None:
    async with engine("http://127.0.0.1:1") as remote:
        await remote.close()
