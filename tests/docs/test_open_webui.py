"""docs/open-webui.md: the calls that Open WebUI makes are answered as it reads them, and its models are the presets."""

import json
import re
from typing import Any, Final

import httpx
import pytest

from tools.processes import ROOT

PAGE: Final = (ROOT / "docs" / "open-webui.md").read_text()
HEADERS: Final = {"Authorization": "Bearer a-key", "X-OpenWebUI-User-Name": "Ada", "X-OpenWebUI-Chat-Id": "one"}
"""It sends its connection's key always, and who asks where it is told to."""
CHAT: Final[dict[str, Any]] = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I repot a fern?"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.7,
    "max_tokens": 80,
}
TITLE: Final[dict[str, Any]] = {
    "messages": [{"role": "user", "content": "Give this chat a title.\nUser: How do I repot a fern?"}],
    "stream": False,
    "max_completion_tokens": 40,
}
ROWS: Final = re.findall(r"^\| `(demo\S*)` \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.raise_for_status().text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def ask(url: str, body: dict[str, Any], **more: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers={**HEADERS, **more}, timeout=60)


def test_the_models_of_the_page_are_those_of_the_list(demo_url: str) -> None:
    found = httpx.get(f"{demo_url}/v1/models", headers=HEADERS).raise_for_status().json()
    assert {model["id"] for model in found["data"]} == {name for name, _, _ in ROWS}


@pytest.mark.parametrize(("model", "safety", "helpfulness"), ROWS)
def test_a_model_of_the_list_streams_an_answer_under_its_dials(
    model: str, safety: str, helpfulness: str, demo_url: str
) -> None:
    events = events_of(ask(demo_url, {**CHAT, "model": model}))
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    [usage] = [event["usage"] for event in events if event.get("usage")]
    assert usage["completion_tokens"] > 0
    in_force = {"0.75" if "default" in said else said for said in (safety, helpfulness)}
    assert {str(level) for level in events[-1]["control"]["effective"].values()} == in_force


def test_what_it_asks_beside_a_chat_is_answered(demo_url: str) -> None:
    answer = ask(demo_url, {**TITLE, "model": "demo:strict"}).raise_for_status().json()
    assert answer["choices"][0]["message"]["content"]


def test_headers_of_a_connection_go_before_a_preset(demo_url: str) -> None:
    [headers] = [json.loads(found) for found in re.findall(r"`(\{\"X-Control.*?\})`", PAGE)]
    answer = ask(demo_url, {**TITLE, "model": "demo:strict"}, **headers).raise_for_status().json()
    assert answer["control"]["effective"] == {"safety": 0.9, "helpfulness": 0.6}
