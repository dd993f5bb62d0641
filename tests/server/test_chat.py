"""The chat route: dials reach the engine as messages, and the receipt tells what was in force."""

import json
from typing import Any

import httpx
import orjson
import pytest

from tests.server.recording import DIGEST, RecordingEngine

CONTENT_TYPE = {"Content-Type": "application/json"}
CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
ADAPTER = f"demo-control@{DIGEST[7:19]}"


async def ask(http: httpx.AsyncClient, headers: dict[str, str] | None = None, **extra: Any) -> httpx.Response:
    return await http.post("/v1/chat/completions", json={**CHAT, **extra}, headers=headers)


async def test_a_dialled_request_reaches_the_engine_as_control_text_and_adapter(
    http: httpx.AsyncClient, engine: RecordingEngine
) -> None:
    response = await ask(http, control={"safety": 0.9, "helpfulness": 0.6}, temperature=0.5, unknown_to_us=[1])
    assert response.status_code == 200
    asked = engine.asked[0].body
    assert asked["model"] == ADAPTER
    assert asked["messages"] == [{"role": "user", "content": "Hello [helpful=0.60][harmless=0.90]"}]
    assert asked["temperature"] == 0.5
    assert asked["unknown_to_us"] == [1]
    assert "control" not in asked


async def test_the_receipt_tells_what_was_asked_and_what_was_in_force(http: httpx.AsyncClient) -> None:
    receipt = (await ask(http, control={"safety": 0.9})).json()["control"]
    assert receipt["requested"] == {"safety": 0.9}
    assert receipt["effective"] == {"safety": 0.9, "helpfulness": 0.75}
    assert receipt["clamped"] == []
    assert receipt["mode"] == "adapter"
    assert receipt["adapter"] == ADAPTER
    assert receipt["control_text"] == "[helpful=0.75][harmless=0.90]"
    assert set(receipt["timing_ms"]) == {"plan", "total"}
    assert "prompt_version" not in receipt


async def test_prompt_mode_words_the_dials_in_the_system_message(
    http: httpx.AsyncClient, engine: RecordingEngine
) -> None:
    messages = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Hello"}]
    response = await ask(http, messages=messages, control={"mode": "prompt", "safety": 1, "helpfulness": 0})
    system = engine.asked[0].body["messages"][0]["content"]
    assert system.startswith("You are kind.\n\n")
    assert engine.asked[0].body["model"] == "demo"
    assert response.json()["control"]["prompt_version"] == "rheostat-1"
    assert messages[0]["content"] == "You are kind."


async def test_off_leaves_the_request_as_it_came(http: httpx.AsyncClient, engine: RecordingEngine) -> None:
    receipt = (await ask(http, control={"mode": "off", "safety": 0.2})).json()["control"]
    assert engine.asked[0].body == CHAT
    assert receipt["mode"] == "off"
    assert "effective" not in receipt
    assert "clamped" not in receipt


async def test_what_could_undo_control_is_refused_only_there(http: httpx.AsyncClient, engine: RecordingEngine) -> None:
    harmless: dict[str, Any] = {
        "chat_template_kwargs": {"enable_thinking": False},
        "kv_transfer_params": {"do_remote_prefill": True},
    }
    assert (await ask(http, **harmless)).status_code == 200
    assert (await ask(http, chat_template_kwargs={"truncation": True}, control={"mode": "off"})).status_code == 200
    assert (await ask(http, chat_template_kwargs="harmless")).status_code == 200
    assert harmless.items() <= engine.asked[0].body.items()


async def test_a_stream_passes_through_and_ends_with_the_receipt(http: httpx.AsyncClient) -> None:
    response = await ask(http, stream=True, control={"safety": 0.25})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    assert [json.loads(text)["choices"][0]["delta"]["content"] for text in events[:2]] == ["Ye", "s."]
    last = json.loads(events[-2])
    assert last["choices"] == []
    assert last["id"] == "chatcmpl-1"
    assert last["control"]["effective"]["safety"] == 0.25
    assert last["control"]["timing_ms"]["first_event"] <= last["control"]["timing_ms"]["total"]


async def test_precedence_is_body_then_header_then_preset_then_default(http: httpx.AsyncClient) -> None:
    response = await ask(
        http,
        headers={"X-Control-Safety": "0.4", "X-Control-Helpfulness": "0.3"},
        model="demo:strict",
        control={"safety": 0.2},
    )
    assert response.json()["control"]["effective"] == {"safety": 0.2, "helpfulness": 0.3}


async def test_a_preset_is_a_model_name(http: httpx.AsyncClient, engine: RecordingEngine) -> None:
    receipt = (await ask(http, model="demo:strict")).json()["control"]
    assert receipt["effective"] == {"safety": 1.0, "helpfulness": 0.5}


async def test_a_mode_can_be_set_by_header(http: httpx.AsyncClient) -> None:
    assert (await ask(http, headers={"X-Control-Mode": "prompt"})).json()["control"]["mode"] == "prompt"


async def test_an_adapter_can_be_named_with_and_without_its_digest(http: httpx.AsyncClient) -> None:
    for name in ("demo-control", ADAPTER):
        assert (await ask(http, control={"adapter": name})).json()["control"]["adapter"] == ADAPTER


@pytest.mark.parametrize(
    ("control", "status", "param", "said"),
    [
        ({"safety": "0.5"}, 422, "control.safety", "'0.5'"),
        ({"safety": None}, 422, "control.safety", "None"),
        ({"safety": True}, 422, "control.safety", "True"),
        ({"safety": -0.1}, 422, "control.safety", "-0.1"),
        ({"helpfulness": 1.1}, 422, "control.helpfulness", "1.1"),
        ({"helpfulness": [1]}, 422, "control.helpfulness", "[1]"),
        ({"harm": 1}, 422, "control.harm", "known fields: safety, helpfulness"),
        ({"mode": "magic"}, 422, "control.mode", "known modes: auto, off, prompt, adapter"),
        ({"mode": "rerank"}, 422, "control.mode", "no scorers"),
        ({"mode": 3}, 422, "control.mode", "3"),
        ({"mode": ""}, 422, "control.mode", "known modes: auto, off, prompt, adapter"),
        ({"preset": ""}, 404, "control.preset", "strict, balanced, open"),
        ({"adapter": "nobody"}, 404, "control.adapter", "demo-control@"),
        ({"adapter": "demo-control", "mode": "prompt"}, 422, "control.adapter", "'prompt'"),
        ({"preset": "wild"}, 404, "control.preset", "strict, balanced, open"),
        ({"candidates": 4}, 422, "control.candidates", "4"),
        ({"candidates": 0}, 422, "control.candidates", "is 0; it must be a whole number from 1"),
        ({"candidates": True}, 422, "control.candidates", "is True; it must be a whole number from 1"),
        ({"choose_after": "now"}, 422, "control.choose_after", "is 'now'; it must be a whole number of tokens from 1"),
        ({"choose_after": 0}, 422, "control.choose_after", "tokens from 1 to 2147483647, or 'end'"),
        ({"early_stop": 1}, 422, "control.early_stop", "is 1; it must be true or false"),
        ("loud", 422, "control", "'loud'"),
        ([], 422, "control", "[]"),
    ],
)
async def test_wrong_control_is_refused_by_name_and_value(
    http: httpx.AsyncClient, engine: RecordingEngine, control: object, status: int, param: str, said: str
) -> None:
    response = await ask(http, control=control)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert said in error["message"]
    assert engine.asked == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_dials_that_are_no_numbers_are_refused(http: httpx.AsyncClient, value: str) -> None:
    body = '{"model":"demo","messages":[{"role":"user","content":"x"}],"control":{"safety":' + value + "}}"
    response = await http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("value", ["", "high", "nan", "inf", "1.1", "-0.1", "0x1", "1e-3", "٠"])
async def test_a_wrong_dial_header_is_refused(http: httpx.AsyncClient, value: str) -> None:
    response = await ask(http, headers={"X-Control-Safety": value.encode("utf-8")})  # type: ignore[dict-item]
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "x-control-safety"


async def test_a_dial_header_sent_twice_is_refused(http: httpx.AsyncClient) -> None:
    headers = [*CONTENT_TYPE.items(), ("X-Control-Safety", "0.2"), ("X-Control-Safety", "0.9")]
    response = await http.post("/v1/chat/completions", content=orjson.dumps(CHAT), headers=headers)
    assert response.status_code == 422
    assert "'0.2, 0.9'" in response.json()["error"]["message"]


@pytest.mark.parametrize("mode", ["", "magic", "rerank+rerank"])
async def test_a_wrong_mode_header_is_refused_by_its_name(http: httpx.AsyncClient, mode: str) -> None:
    error = (await ask(http, headers={"X-Control-Mode": mode}, control={"mode": "off"})).json()["error"]
    assert (error["code"], error["param"]) == ("unknown_mode", "x-control-mode")
    assert "known modes: auto, off, prompt, adapter" in error["message"]


async def test_an_unknown_control_header_is_refused(http: httpx.AsyncClient) -> None:
    response = await ask(http, headers={"X-Control-Safty": "1"})
    assert response.status_code == 422
    assert "x-control-safety" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("extra", "status", "param"),
    [
        ({"model": "nobody"}, 404, "model"),
        ({"model": "demo:wild"}, 404, "model"),
        ({"model": 7}, 422, "model"),
        ({"model": ADAPTER}, 404, "model"),
        ({"n": 0}, 422, "n"),
        ({"n": 10**6}, 422, "n"),
        ({"n": "2"}, 422, "n"),
        ({"n": True}, 422, "n"),
        ({"messages": []}, 422, "messages"),
        ({"messages": "hello"}, 422, "messages"),
        ({"messages": [3]}, 422, "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, 422, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "x"}]}, 422, "messages"),
        ({"messages": [{"role": "user"}]}, 422, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, 422, "messages"),
        ({"messages": [{"role": "system"}], "control": {"mode": "prompt"}}, 422, "messages"),
        ({"truncate_prompt_tokens": 3}, 422, "truncate_prompt_tokens"),
        ({"chat_template": "{{ 1 }}"}, 422, "chat_template"),
        ({"chat_template_kwargs": {"truncation": True}}, 422, "chat_template_kwargs.truncation"),
        ({"chat_template_kwargs": {"eos_token": " [x=0.00]"}}, 422, "chat_template_kwargs.eos_token"),
        ({"chat_template_kwargs": {"tokenizer_kwargs": {}}}, 422, "chat_template_kwargs.tokenizer_kwargs"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [1]}]}, 422, "messages"),
        ({"chat_template_kwargs": {"max_length": 3}}, 422, "chat_template_kwargs.max_length"),
        ({"kv_transfer_params": {"prompt_token_ids": [3]}}, 422, "kv_transfer_params.prompt_token_ids"),
        ({"stream": "yes"}, 422, "stream"),
    ],
)
async def test_a_wrong_body_is_refused_by_field(
    http: httpx.AsyncClient, engine: RecordingEngine, extra: dict[str, Any], status: int, param: str
) -> None:
    response = await ask(http, **extra)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert engine.asked == []


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"model":"demo","messages":' + b"[" * 100 + b"]" * 100 + b"}", "application/json", 400),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b'{"a":"' + b"x" * 10_000_000 + b'"}', "application/json", 413),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    http: httpx.AsyncClient, content: bytes, content_type: str, status: int
) -> None:
    response = await http.post("/v1/chat/completions", content=content, headers={"Content-Type": content_type})
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_length_beyond_all_numbers_is_refused(http: httpx.AsyncClient) -> None:
    headers = {**CONTENT_TYPE, "Content-Length": "9" * 5000}
    assert (await http.post("/v1/chat/completions", content=b"{}", headers=headers)).status_code == 413


@pytest.mark.parametrize(
    ("parts", "sent"),
    [
        (["Hello"], ["Hello [helpful=1.00][harmless=1.00]"]),
        (["One", "Two", None], ["One", "Two [helpful=1.00][harmless=1.00]", None]),
        ([None], [None, "[helpful=1.00][harmless=1.00]"]),
        ([""], ["[helpful=1.00][harmless=1.00]"]),
    ],
)
async def test_control_text_joins_the_last_text_part_of_a_message(
    http: httpx.AsyncClient, engine: RecordingEngine, parts: list[str | None], sent: list[str | None]
) -> None:
    def as_parts(texts: list[str | None]) -> list[dict[str, Any]]:
        image = {"type": "image_url", "image_url": {"url": "data:,"}}
        return [image if text is None else {"type": "text", "text": text} for text in texts]

    await ask(http, messages=[{"role": "user", "content": as_parts(parts)}], control={"safety": 1, "helpfulness": 1})
    assert engine.asked[0].body["messages"][0]["content"] == as_parts(sent)


async def test_callers_credentials_do_not_reach_the_engine(http: httpx.AsyncClient, engine: RecordingEngine) -> None:
    await ask(http, headers={"Authorization": "Bearer secret", "X-Request-ID": "r-1", "X-Control-Safety": "1"})
    assert engine.asked[0].request_id == "r-1"
    assert not {"authorization", "x-control-safety", "host"} & set(engine.asked[0].headers)
