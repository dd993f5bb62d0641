"""Rheostat in a real vLLM: what its own routes would do is still done, and nothing goes around the pipeline."""

import json
import threading
from typing import Any

import httpx
import pytest

from tests.engines.vllm.server import VllmServer
from tests.tiny import TinyAdapter

CONTROL_TEXT = "[helpful=0.50][harmless=0.25]"
DIALS = {"safety": 0.25, "helpfulness": 0.5}


def body(text: str = "How do I keep a small garden?", /, **fields: Any) -> dict[str, Any]:
    return {
        "model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 16, **fields
    }  # fmt: skip


def ask(server: VllmServer, asked: dict[str, Any], **headers: str) -> httpx.Response:
    with server.client() as client:
        return client.post("/v1/chat/completions", json=asked, headers=headers)


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    *chunks, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


def streamed_text(chunks: list[dict[str, Any]]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_without_control_the_answer_is_the_one_of_bare_vllm(
    rheostat_in_vllm: VllmServer, bare_vllm: VllmServer
) -> None:
    off = {"control": {"mode": "off"}}
    assert text(ask(rheostat_in_vllm, body(**off))) == text(ask(bare_vllm, body()))


def test_the_adapter_mode_is_the_adapter_and_its_control_text(
    rheostat_in_vllm: VllmServer, bare_vllm: VllmServer, tiny_adapters: list[TinyAdapter]
) -> None:
    for adapter in tiny_adapters:
        controlled = body(control={**DIALS, "mode": "adapter", "adapter": adapter.id})
        by_hand = body(f"How do I keep a small garden? {CONTROL_TEXT}", model=adapter.id)
        ours, theirs = ask(rheostat_in_vllm, controlled), ask(bare_vllm, by_hand)
        assert text(ours) == text(theirs)
        assert ours.json()["usage"] == theirs.json()["usage"]


def test_a_stream_is_the_one_of_bare_vllm_and_the_receipt(rheostat_in_vllm: VllmServer, bare_vllm: VllmServer) -> None:
    """vLLM joins tokens that are ready at once, so events may be cut differently."""
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    *ours, usage, receipt = events(ask(rheostat_in_vllm, body(**streamed, control={"mode": "off"})))
    *theirs, bare_usage = events(ask(bare_vllm, body(**streamed)))
    assert receipt["control"]["mode"] == "off"
    assert usage["usage"] == bare_usage["usage"]
    assert ours[0].keys() == theirs[0].keys()
    assert streamed_text(ours) == streamed_text(theirs)


@pytest.mark.parametrize(
    "fields",
    [
        {"structured_outputs": {"choice": ["first", "second"]}},
        {"structured_outputs": {"regex": "(first|second)"}},
    ],
)
def test_structured_output_of_vllm_passes(rheostat_in_vllm: VllmServer, fields: dict[str, Any]) -> None:
    assert text(ask(rheostat_in_vllm, body(**fields, control={"mode": "adapter"}))) in ("first", "second")


def test_logprobs_of_the_prompt_pass(rheostat_in_vllm: VllmServer) -> None:
    answer = ask(rheostat_in_vllm, body(prompt_logprobs=1))
    assert answer.status_code == 200
    assert len(answer.json()["prompt_logprobs"]) == answer.json()["usage"]["prompt_tokens"]


def test_the_request_id_of_the_caller_is_the_one_in_vllm(rheostat_in_vllm: VllmServer) -> None:
    answer = ask(rheostat_in_vllm, body(), **{"X-Request-Id": "asked-by-me"})
    assert answer.json()["id"] == "chatcmpl-asked-by-me"
    assert answer.headers["x-request-id"] == "asked-by-me"


def test_an_adapter_named_as_the_kind_of_a_content_part_is_not_picked(
    rheostat_in_vllm: VllmServer, tiny_adapters: list[TinyAdapter]
) -> None:
    """vLLM picks an adapter for a request that names none where a part's kind begins with the adapter's name."""
    part = {"type": f"{tiny_adapters[0].id}_url", "text": "How do I keep a small garden?"}
    messages = [{"role": "user", "content": [part]}]
    answer = ask(rheostat_in_vllm, body(messages=messages, control={"mode": "off"}))
    assert answer.status_code == 400


@pytest.mark.parametrize("field", ["truncate_prompt_tokens", "chat_template"])
def test_control_cannot_be_cut_out_of_the_prompt(rheostat_in_vllm: VllmServer, field: str) -> None:
    answer = ask(rheostat_in_vllm, body(**{field: 3}, control={"mode": "adapter"}))
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == field


def test_the_load_that_vllm_tells_counts_our_requests(rheostat_in_vllm: VllmServer) -> None:
    loads: set[int] = set()
    asking = threading.Thread(target=ask, args=(rheostat_in_vllm, body(max_tokens=400, ignore_eos=True)))
    with rheostat_in_vllm.client() as client:
        assert client.get("/load").json() == {"server_load": 0}
        asking.start()
        while asking.is_alive():
            loads.add(client.get("/load").json()["server_load"])
        asking.join()
        assert client.get("/load").json() == {"server_load": 0}
    assert 1 in loads


def test_candidates_share_the_prefill_of_their_prompt(rheostat_in_vllm: VllmServer) -> None:
    def computed() -> float:
        return rheostat_in_vllm.number("vllm:request_prefill_kv_computed_tokens_sum")

    before = computed()
    answer = ask(rheostat_in_vllm, body("Tell me of herbs and beans. " * 40, n=4, temperature=1))
    prompt = answer.json()["usage"]["prompt_tokens"]
    assert len(answer.json()["choices"]) == 4
    assert computed() - before < 2 * prompt  # the blocks that the prompt fills are shared, its last tokens are not


def test_many_dial_settings_in_one_batch_answer_as_each_alone(rheostat_in_vllm: VllmServer) -> None:
    asked = [body(control={"mode": "adapter", "safety": step / 8, "helpfulness": 1 - step / 8}) for step in range(8)]
    alone = [text(ask(rheostat_in_vllm, one)) for one in asked]
    together: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda index=index, one=one: together.update({index: text(ask(rheostat_in_vllm, one))}))
        for index, one in enumerate(asked)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(8)] == alone
    assert len(set(alone)) == 8
