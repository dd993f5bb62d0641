"""A blend in a real vLLM: every point of its grid is served, within the slots, and is the model that it should be."""

import threading
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rheostat_server.blending.store import Blend, load_blend
from rheostat_server.contract.dials import Dials
from tests.blends import TinyBlend
from tests.engines.embedded.asking import Reference
from tests.engines.vllm.server import VllmServer
from tools.reference_merge import logits_of, merged

LEVELS = (0, 0.25, 0.5, 0.75, 1)
TEXT = "How do I keep a small garden?"


@pytest.fixture(scope="module")
def blend(tiny_blend: TinyBlend) -> Blend:
    return load_blend(tiny_blend.folder, base_digest=tiny_blend.manifest.base_model.digest)


def body(safety: float, helpfulness: float, **fields: Any) -> dict[str, Any]:
    control = {"mode": "blend", "safety": safety, "helpfulness": helpfulness}
    messages = [{"role": "user", "content": TEXT}]
    return {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 8, "control": control, **fields}


def ask(server: VllmServer, asked: dict[str, Any]) -> dict[str, Any]:
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def text(answer: dict[str, Any]) -> str:
    said: str = answer["choices"][0]["message"]["content"]
    return said


def test_every_point_is_served_and_equals_the_reference_merge(
    rheostat_in_vllm: VllmServer, tiny_model: Path, blend: Blend
) -> None:
    reference = Reference.load(tiny_model)
    differences, addresses = [], set()
    for safety, helpfulness in product(LEVELS, LEVELS):
        asked = body(safety, helpfulness, max_tokens=4, logprobs=True, top_logprobs=20, return_tokens_as_token_ids=True)
        answer = ask(rheostat_in_vllm, asked)
        point = blend.at(Dials(safety=safety, helpfulness=helpfulness), {})
        assert answer["control"]["adapter"] == answer["model"] == point.address
        assert answer["control"]["blend"] == dict(point.weights)
        said = answer["choices"][0]["logprobs"]["content"]
        ids = [number(token["token"]) for token in said]
        prompt = reference.prompt(TEXT)
        scores = logits_of(merged(tiny_model, point.parts), [*prompt, *ids])[len(prompt) - 1 : -1].log_softmax(-1)
        told = {
            (row, number(each["token"])): each["logprob"]
            for row, one in enumerate(said)
            for each in one["top_logprobs"]
        }
        differences += [abs(scores[place].item() - logprob) for place, logprob in told.items()]
        addresses.add(point.address)
    assert len(addresses) == 25
    assert max(differences) < 1e-4
    assert rheostat_in_vllm.number("rheostat_blends_loaded") == 25
    assert rheostat_in_vllm.number("rheostat_blend_evictions_total") == 0


def number(token: str) -> int:
    return int(token.removeprefix("token_id:"))


def test_points_the_base_and_an_adapter_in_one_batch_answer_as_each_alone(rheostat_in_vllm: VllmServer) -> None:
    """Neither do two points share what the prefix cache keeps of one prompt, nor do slots leak into the base's."""
    asked = [
        *(body(safety, 1 - safety, max_tokens=32) for safety in LEVELS),
        body(0, 0, max_tokens=32, control={"mode": "off"}),
        body(0, 0, max_tokens=32, control={"mode": "adapter", "safety": 0.5, "helpfulness": 0.5}),
    ]
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
    assert [together[index] for index in range(len(asked))] == alone
    assert len(set(alone)) == len(asked)


def test_candidates_are_drawn_by_a_blend(rheostat_in_vllm: VllmServer) -> None:
    control = {"mode": "blend+rerank", "safety": 1, "helpfulness": 0.5, "candidates": 3}
    with rheostat_in_vllm.client() as client:
        streamed = client.post("/v1/chat/completions", json=body(1, 0.5, stream=True, temperature=1, control=control))
    assert streamed.status_code == 200
    whole = ask(rheostat_in_vllm, body(1, 0.5, temperature=1, control=control))
    assert whole["control"]["mode"] == "blend+rerank"
    assert whole["control"]["blend"] == {"safe": 1.0, "helpful": 0.25}
    assert whole["control"]["candidates"]["finished"] == 3
