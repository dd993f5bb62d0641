"""What a client raises, and when it asks again."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from inspect import isclass
from time import time
from typing import Any

import httpx
import pytest

import rheostat
from rheostat import (
    APIError,
    BadRequest,
    ConnectionFailed,
    Forbidden,
    InvalidValue,
    NoScorers,
    NotFound,
    OutsideEnvelope,
    RateLimited,
    RheostatError,
    ServerError,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnreadableAnswer,
    errors,
)
from tests.client.twins import COMPLETION, Body, Handler, Twin

REFUSED = {"message": "no", "type": "t", "param": "control.safety", "code": "c"}


def answering(*responses: httpx.Response | Exception) -> tuple[Handler, Callable[[], int]]:
    """A server that answers so in turn, and how often it was asked."""
    left: Iterator[httpx.Response | Exception] = iter(responses)
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle, lambda: len(asked)


def refusal(status: int, code: str | None = "c", **headers: str) -> httpx.Response:
    named = {"X-Request-ID": "r-1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.Response(status, json={"error": {**REFUSED, "code": code}}, headers=named)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "bad_request", BadRequest),
        (401, "invalid_api_key", Unauthorized),
        (403, "outside_envelope", OutsideEnvelope),
        (403, "not_admin", Forbidden),
        (404, "model_not_found", NotFound),
        (413, "body_too_large", BadRequest),
        (415, "unsupported_media_type", BadRequest),
        (422, "invalid_value", InvalidValue),
        (429, "rate_limit_exceeded", RateLimited),
        (500, None, ServerError),
        (501, "no_scorers", NoScorers),
        (502, "engine_failed", ServerError),
        (503, "draining", Unavailable),
        (418, None, APIError),
        (307, None, APIError),
    ],
)
async def test_an_error_has_a_class_of_its_own_and_all_that_the_server_said(
    twin: Twin, status: int, code: str | None, kind: type[APIError]
) -> None:
    twin.settings = {"retries": 0}
    handle, _ = answering(refusal(status, code))
    with pytest.raises(kind) as raised:
        await twin.ask(handle, "models")
    error = raised.value
    assert type(error) is kind
    assert (error.message, error.status, error.code, error.param, error.request_id) == (
        "no", status, code, "control.safety", "r-1",
    )  # fmt: skip
    assert str(error).startswith(f"no (status {status}, ")


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", '"text"', '{"detail": "gone"}', "", '{"error": "gone"}'])
async def test_an_error_in_another_form_shows_what_was_said(twin: Twin, body: str) -> None:
    handle, _ = answering(httpx.Response(502, text=body))
    with pytest.raises(ServerError, match="an error without OpenAI's form") as raised:
        await twin.ask(handle, "models")
    assert (raised.value.code, raised.value.param, raised.value.request_id) == (None, None, None)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b"null", json.dumps({**COMPLETION, "choices": []}).encode(),
     json.dumps({name: part for name, part in COMPLETION.items() if name != "control"}).encode()],
)  # fmt: skip
async def test_an_answer_of_another_kind_of_server_is_no_answer(twin: Twin, body: bytes) -> None:
    handle, _ = answering(httpx.Response(200, content=body, headers={"X-Request-ID": "r-2"}))
    with pytest.raises(UnreadableAnswer, match="which a Rheostat server does not") as raised:
        await twin.ask(handle, "chat", "Hello", model="m")
    assert (raised.value.status, raised.value.request_id) == (200, "r-2")


async def test_a_server_without_models_for_the_caller_is_told_of(twin: Twin) -> None:
    handle, _ = answering(httpx.Response(200, json={"data": []}))
    with pytest.raises(UnreadableAnswer, match="names no model that this caller may use"):
        await twin.ask(handle, "chat", "Hello")


@pytest.mark.parametrize("passing", [429, 503])
async def test_what_passes_is_asked_again_after_ever_longer_pauses(
    twin: Twin, passing: int, pauses: list[float]
) -> None:
    handle, asked = answering(refusal(passing), refusal(passing), httpx.Response(200, json=COMPLETION))
    answer = await twin.ask(handle, "chat", "Hello", model="m")
    assert (answer.content, asked()) == ("Yes.", 3)
    assert 0.5 <= pauses[0] <= 0.625
    assert 1 <= pauses[1] <= 1.25


@pytest.mark.parametrize("lasting", [400, 401, 403, 404, 422, 500, 501, 502, 504])
async def test_what_lasts_is_not_asked_again(twin: Twin, lasting: int, pauses: list[float]) -> None:
    handle, asked = answering(refusal(lasting))
    with pytest.raises(APIError):
        await twin.ask(handle, "models")
    assert (asked(), pauses) == (1, [])


async def test_no_more_is_asked_than_was_said(twin: Twin, pauses: list[float]) -> None:
    for retries in (0, 1, 4):
        twin.settings = {"retries": retries}
        handle, asked = answering(*[refusal(429)] * 9)
        with pytest.raises(RateLimited):
            await twin.ask(handle, "models")
        assert asked() == retries + 1
    assert len(pauses) == 5


async def test_a_pause_is_no_shorter_than_the_server_wants(twin: Twin, pauses: list[float]) -> None:
    in_a_while = formatdate(time() + 20, usegmt=True)
    handle, _ = answering(
        refusal(429, Retry_After="7"), refusal(503, Retry_After=in_a_while), httpx.Response(200, json={"data": []})
    )
    await twin.ask(handle, "models")
    assert 7 <= pauses[0] <= 8.75
    assert 18 <= pauses[1] <= 25


async def test_a_server_that_wants_to_be_left_alone_for_long_is(twin: Twin, pauses: list[float]) -> None:
    handle, asked = answering(refusal(429, Retry_After="3600"))
    with pytest.raises(RateLimited) as raised:
        await twin.ask(handle, "models")
    assert (raised.value.retry_after, asked(), pauses) == (3600, 1, [])


@pytest.mark.parametrize("header", ["soon", "-3", "1.5.2", ""])
async def test_a_retry_after_that_says_nothing_is_passed_over(twin: Twin, header: str, pauses: list[float]) -> None:
    handle, asked = answering(refusal(429, Retry_After=header), httpx.Response(200, json={"data": []}))
    await twin.ask(handle, "models")
    assert asked() == 2
    assert 0.5 <= pauses[0] <= 0.625


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectTimeout])
async def test_a_broken_connection_is_tried_again(
    twin: Twin, kind: type[httpx.RequestError], pauses: list[float]
) -> None:
    handle, asked = answering(kind("broken"), httpx.Response(200, json={"data": [{"id": "demo"}]}))
    assert await twin.ask(handle, "models") == ["demo"]
    assert asked() == 2
    handle, _ = answering(*[kind("broken")] * 3)
    with pytest.raises(ConnectionFailed, match="http://server/v1/models did not answer: broken") as raised:
        await twin.ask(handle, "models")
    assert isinstance(raised.value.__cause__, kind)


@pytest.mark.parametrize(("cause", "kind"), [(httpx.ReadTimeout, TimedOut), (httpx.ProxyError, ConnectionFailed)])
async def test_a_request_that_the_server_may_be_at_work_on_is_not_sent_again(
    twin: Twin, cause: type[httpx.RequestError], kind: type[ConnectionFailed], pauses: list[float]
) -> None:
    handle, asked = answering(cause(""))
    with pytest.raises(kind, match=cause.__name__):
        await twin.ask(handle, "models")
    assert (asked(), pauses) == (1, [])


@pytest.mark.parametrize(("cause", "kind"), [(httpx.ReadError, ConnectionFailed), (httpx.ReadTimeout, TimedOut)])
@pytest.mark.parametrize("status", [200, 503])
async def test_an_answer_that_breaks_off_is_not_asked_for_again_and_its_request_is_told(
    twin: Twin, cause: type[httpx.RequestError], kind: type[ConnectionFailed], status: int, pauses: list[float]
) -> None:
    body = Body([b'{"object": '], breaks=cause("broken"))
    handle, asked = answering(httpx.Response(status, stream=body, headers={"X-Request-ID": "r-3"}))
    with pytest.raises(kind, match="http://server/v1/control/sweep did not answer to the end: broken") as raised:
        await twin.ask(handle, "sweep", "Hello", model="m")
    assert (type(raised.value), raised.value.status, raised.value.request_id) == (kind, status, "r-3")
    assert (asked(), pauses, body.closed) == (1, [], True)
    assert isinstance(raised.value.__cause__, cause)


@pytest.mark.parametrize("status", [200, 404])
async def test_every_answer_is_closed(twin: Twin, status: int) -> None:
    body = Body([b'{"data": []}'])
    handle, _ = answering(httpx.Response(status, stream=body))
    with suppress(NotFound):
        await twin.ask(handle, "models")
    assert body.closed


@pytest.mark.parametrize("key", ["sk secret", "sk-secret\nHost: other", "sk-s\u00e9cret", "\x00secret"])
async def test_a_key_that_is_none_is_refused_and_not_shown(twin: Twin, key: str) -> None:
    twin.settings = {"api_key": key}
    with pytest.raises(ValueError, match="api_key is no key") as raised:
        await twin.ask(answering()[0], "models")
    assert "cret" not in str(raised.value)


async def test_a_pause_is_logged_without_what_was_asked(
    twin: Twin, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    handle, _ = answering(refusal(429, "rate_limit_exceeded"), httpx.Response(200, json=COMPLETION))
    twin.settings = {"api_key": "sk-secret"}
    with caplog.at_level("INFO", "rheostat"):
        await twin.ask(handle, "chat", "Hello", model="m")
    [told] = caplog.messages
    assert re.fullmatch(r"/v1/chat/completions: rate_limit_exceeded; asking again in 0\.[56] s", told)


async def test_an_error_does_not_tell_the_password_of_an_address(pauses: list[float]) -> None:
    handle, _ = answering(httpx.ConnectError("broken"))
    client = rheostat.Client("http://me:secret@server", transport=httpx.MockTransport(handle), retries=0)
    with pytest.raises(ConnectionFailed) as raised:
        client.models()
    assert "secret" not in str(raised.value)


def test_every_error_is_told_in_the_tree_and_offered() -> None:
    kinds: list[Any] = [kind for kind in vars(errors).values() if isclass(kind) and issubclass(kind, RheostatError)]
    assert len(kinds) == 16
    assert all(kind.__name__ in (errors.__doc__ or "") and kind.__name__ in rheostat.__all__ for kind in kinds)


async def test_an_event_loop_is_free_while_a_client_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    handle, _ = answering(refusal(503, Retry_After="1"), httpx.Response(200, json={"data": [{"id": "demo"}]}))
    monkeypatch.setattr("rheostat.retries.random.uniform", lambda least, most: 0.05)
    async with rheostat.AsyncClient("http://server", transport=httpx.MockTransport(handle)) as client:
        waiting = asyncio.ensure_future(client.models())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert await waiting == ["demo"]
