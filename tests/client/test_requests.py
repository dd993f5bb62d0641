"""What the clients send, both of them alike, and what they refuse to send."""

import asyncio
import json
from collections.abc import Mapping
from inspect import signature
from typing import Any

import httpx
import pytest

from rheostat import MODES, AsyncClient, Client, Control, Dials, ServerError, control_headers
from rheostat_server.api.control_block import ControlBlock, read_control
from rheostat_server.modes import KNOWN_MODES
from tests.client.twins import COMPLETION, Twin

SCORES = {"scores": {"safety": 0.5, "helpfulness": None}, "scorers": []}
MODELS = {"object": "list", "data": [{"id": "demo"}, {"id": "demo:strict"}]}
POINT = {"index": 0, "safety": 0, "content": "Yes.", "control": COMPLETION["control"]}
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": COMPLETION,
    "/v1/control/plan": {"requested": {}, "mode": "off", "engine": "fake", "engine_request": {}},
    "/v1/control/score": SCORES,
    "/v1/control/sweep": {"object": "control.sweep", "model": "demo", "points": [POINT], "usage": {}},
    "/v1/models": MODELS,
}


class Server:
    """Keeps what it was sent, and answers each route in its form."""

    def __init__(self) -> None:
        self.got: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        return httpx.Response(200, json=ANSWERS[request.url.path], headers={"X-Request-ID": "r-1"})

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.got[-1].content)
        return body


HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("method", "arguments", "named", "path", "body"),
    [
        ("chat", ["Hello"], {"model": "m"}, "/v1/chat/completions", {"model": "m", "messages": HELLO}),
        (
            "chat",
            [HELLO],
            {"model": "m", "dials": {"safety": 0.9}, "mode": "adapter", "adapter": "a", "max_tokens": 5, "top_p": 0.5},
            "/v1/chat/completions",
            {
                "model": "m",
                "messages": HELLO,
                "max_tokens": 5,
                "top_p": 0.5,
                "control": {"safety": 0.9, "mode": "adapter", "adapter": "a"},
            },
        ),
        (
            "chat",
            ["Hello"],
            {"model": "m", "dials": Dials(0, 1), "candidates": 4, "mode": "rerank", "choose_after": "end"},
            "/v1/chat/completions",
            {
                "model": "m",
                "messages": HELLO,
                "control": {"safety": 0, "helpfulness": 1, "mode": "rerank", "candidates": 4, "choose_after": "end"},
            },
        ),
        (
            "chat",
            ["Hello"],
            {"model": "m", "repetition_penalty": 1.1, "extra_body": {"top_k": 3}, "seed": None},
            "/v1/chat/completions",
            {"model": "m", "messages": HELLO, "repetition_penalty": 1.1, "top_k": 3},
        ),
        ("plan", ["Hello"], {"model": "m", "preset": "strict"}, "/v1/control/plan",
         {"model": "m", "messages": HELLO, "control": {"preset": "strict"}}),
        ("score", ["Hello", "Yes."], {}, "/v1/control/score", {"messages": HELLO, "response": "Yes."}),
        ("sweep", ["Hello"], {"model": "m", "safety": [0, 1], "scores": False, "mode": "off"}, "/v1/control/sweep",
         {"model": "m", "messages": HELLO, "sweep": {"safety": [0, 1], "scores": False}, "control": {"mode": "off"}}),
    ],
)  # fmt: skip
async def test_both_clients_send_the_same(
    twin: Twin, method: str, arguments: list[Any], named: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    server = Server()
    await twin.ask(server, method, *arguments, **named)
    assert server.got[-1].url.path == path
    assert server.body == body


async def test_a_model_that_is_not_named_is_the_servers_first_which_is_asked_for_once(twin: Twin) -> None:
    server = Server()
    await twin.ask(server, "chat", "Hello")
    assert [request.url.path for request in server.got] == ["/v1/models", "/v1/chat/completions"]
    assert server.body["model"] == "demo"
    with Client("http://server", transport=httpx.MockTransport(server)) as client:
        client.chat("Hello")
        client.with_dials(safety=1).chat("Hello")
    assert [request.url.path for request in server.got[2:]] == ["/v1/models", *["/v1/chat/completions"] * 2]


async def test_calls_at_the_same_time_ask_for_the_model_once_though_one_of_them_is_cancelled() -> None:
    server = Server()

    async def handle(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.02)
        return server(request)

    async with AsyncClient("http://server", transport=httpx.MockTransport(handle)) as client:
        asking = [asyncio.ensure_future(client.chat("Hello")) for _ in range(5)]
        await asyncio.sleep(0.01)
        asking[0].cancel()
        await asyncio.gather(*asking[1:])
    assert [request.url.path for request in server.got] == ["/v1/models", *["/v1/chat/completions"] * 4]


async def test_a_model_that_could_not_be_asked_for_is_asked_for_anew() -> None:
    server = Server()

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, json={}) if not server.got else server(request)

    async with AsyncClient("http://server", transport=httpx.MockTransport(handle)) as client:
        failed = await asyncio.gather(client.chat("Hello"), client.chat("Hello"), return_exceptions=True)
        assert [type(each) for each in failed] == [ServerError, ServerError]
        server.got.append(httpx.Request("GET", "http://server"))
        assert (await client.chat("Hello")).content == "Yes."


async def test_a_key_and_an_address_come_from_the_environment(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHEOSTAT_API_KEY", "key-of-the-environment")
    server = Server()
    await twin.ask(server, "models")
    assert server.got[0].headers["Authorization"] == "Bearer key-of-the-environment"
    twin.settings = {"api_key": "given"}
    await twin.ask(server, "models")
    assert server.got[1].headers["Authorization"] == "Bearer given"
    twin.settings = {"api_key": " read-from-a-file\n"}
    await twin.ask(server, "models")
    assert server.got.pop().headers["Authorization"] == "Bearer read-from-a-file"
    monkeypatch.setenv("RHEOSTAT_BASE_URL", "http://elsewhere:1/v1/")
    with Client(transport=httpx.MockTransport(server)) as client:
        client.models()
    assert str(server.got[2].url) == "http://elsewhere:1/v1/models"


async def test_the_clients_own_dials_hold_where_a_request_names_none(twin: Twin) -> None:
    server = Server()
    twin.settings = {"dials": {"safety": 0.9, "helpfulness": 0.1}, "mode": "prompt"}
    await twin.ask(server, "chat", "Hello", model="m", dials={"helpfulness": 0.5})
    assert server.body["control"] == {"safety": 0.9, "helpfulness": 0.5, "mode": "prompt"}
    await twin.ask(server, "chat", "Hello", model="m", preset="open")
    assert server.body["control"] == {"preset": "open"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_with_dials_leaves_the_client_as_it_is(kind: type[Client] | type[AsyncClient]) -> None:
    client = kind("http://server", dials=Dials(safety=0.9), mode="prompt")
    copy = client.with_dials(helpfulness=0.2).with_dials(safety=0)
    assert copy.defaults == Control(Dials(0, 0.2), "prompt")
    assert client.defaults == Control(Dials(0.9), "prompt")


@pytest.mark.parametrize("method", ["chat", "plan", "sweep"])
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"dials": {"safety": 1.2}}, "safety is 1.2; a dial is a number from 0 to 1"),
        ({"dials": {"safety": True}}, "safety is True"),
        ({"dials": {"helpfulness": "0.5"}}, "helpfulness is '0.5'"),
        ({"dials": {"helpfulness": float("nan")}}, "helpfulness is nan"),
        ({"dials": {"honesty": 1}}, "'honesty' is no dial; the dials are safety and helpfulness"),
        ({"dials": 0.5}, "dials are 0.5"),
        ({"mode": "magic"}, "mode is 'magic'; the modes are auto, off"),
        ({"control": {}}, "control is not an option"),
        ({"extra_body": {"stream": True}}, "stream is not an option"),
    ],
)
async def test_what_is_wrong_is_refused_before_anything_is_sent(
    twin: Twin, method: str, named: dict[str, Any], said: str
) -> None:
    server = Server()
    with pytest.raises((ValueError, TypeError), match=said):
        await twin.ask(server, method, "Hello", **named)
    assert server.got == []


async def test_levels_of_a_sweep_are_refused_too(twin: Twin) -> None:
    server = Server()
    for levels, said in (([0, 2], "safety is 2"), ([], "safety has no levels")):
        with pytest.raises(ValueError, match=said):
            await twin.ask(server, "sweep", "Hello", safety=levels)
    assert server.got == []


@pytest.mark.parametrize("address", ["server:8000", "ftp://server", "http://", "http://server:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="base_url is"):
        Client(address)


def test_the_clients_names_are_the_servers() -> None:
    assert MODES == KNOWN_MODES
    full = Control(Dials(0.5, 0.5), "rerank", "a", "p", 2, "end", False)
    assert set(full.as_json()) == set(ControlBlock.model_fields)
    assert ControlBlock.model_validate(full.as_json()).as_asked().dials == {"safety": 0.5, "helpfulness": 0.5}


@pytest.mark.parametrize("level", [0, 1, 0.0, 1.0, 0.1, 1e-5, 1e-30, 0.1 + 0.2, 1 / 3])
def test_a_header_says_a_level_in_the_form_that_the_server_reads(level: float) -> None:
    headers = {name.lower(): value for name, value in control_headers(safety=level, mode="prompt").items()}
    read = read_control(None, headers, None)
    assert read.dials["safety"] == pytest.approx(level, abs=1e-20)
    assert (read.mode, set(read.dials)) == ("prompt", {"safety"})


def test_a_header_says_a_level_that_numpy_made() -> None:
    level = pytest.importorskip("numpy").linspace(0, 1, 3)[1]
    assert control_headers(safety=level) == {"X-Control-Safety": "0.5"}


def test_a_number_of_retries_that_is_none_is_refused() -> None:
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="retries is"):
            Client("http://server", retries=wrong)  # type: ignore[arg-type]


def test_the_twins_have_the_same_methods_with_the_same_arguments() -> None:
    named = {name for name in vars(Client) if not name.startswith("_")}
    assert named == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in named - {"defaults"}:
        assert list(signature(vars(Client)[name]).parameters) == list(signature(vars(AsyncClient)[name]).parameters)
