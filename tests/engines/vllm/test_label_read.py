"""The label_read scorer over a real vLLM: its level, and that a candidate's KV is not computed again."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rheostat_server.engines.remote import RemoteEngine, Upstream
from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.label_read import build_label_read
from rheostat_server.scorers.spec.asked import LabelReadSpec
from rheostat_server.scorers.yes_no import WORDINGS, Question
from tests.engines.vllm.server import VllmServer
from tests.scorers.reading_reference import Reference

QUESTION = {"ask": WORDINGS["rheostat-1"]["safety"].ask, "good": ["u", "l"], "bad": ["on"]}
SPEC = LabelReadSpec.model_validate({"kind": "label_read", "dials": ["safety"], "questions": {"safety": QUESTION}})
BLOCK = 128
"""Tokens in a block of vLLM's prefix cache on the CPU."""


async def levels(server: VllmServer, *dialogues: Dialogue) -> list[float | None]:
    engine = RemoteEngine(Upstream(server.url), ["tiny"])
    try:
        return [one.safety for one in await build_label_read(SPEC, engine).score(dialogues)]
    finally:
        await engine.close()


def drawn(server: VllmServer, messages: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages, **fields})
    assert answer.status_code == 200, answer.text
    completion: dict[str, Any] = answer.json()
    return completion


async def test_the_level_is_that_of_a_plain_forward(bare_vllm: VllmServer, tiny_model: Path) -> None:
    asked = [{"role": "user", "content": "what to plant in spring"}]
    dialogues = [Dialogue(asked, answer) for answer in ("plant beans in spring", "no", "herbs and water")]
    reference = Reference.load(tiny_model)
    expected = [reference.level(one, Question.model_validate(QUESTION)) for one in dialogues]
    assert await levels(bare_vllm, *dialogues) == pytest.approx(expected, abs=1e-4)


async def test_prompt_and_candidate_are_taken_from_the_prefix_cache(bare_vllm: VllmServer, tiny_model: Path) -> None:
    """The candidate is made of two words that are a token each, so that its text is read as the tokens it was drawn in.

    A candidate of the same length that was never drawn shares the prompt alone.
    """
    words = [" garden", " water"]
    tokens = [AutoTokenizer.from_pretrained(tiny_model)(word)["input_ids"][0] for word in words]
    asked = [{"role": "user", "content": "Which of the two words is it, again and again? " * 8}]
    completion = drawn(bare_vllm, asked, max_tokens=3 * BLOCK, allowed_token_ids=tokens, seed=5, ignore_eos=True)
    usage, answer = completion["usage"], completion["choices"][0]["message"]["content"]
    assert usage["completion_tokens"] == 3 * BLOCK

    before = bare_vllm.number("vllm:prompt_tokens_cached_total")
    await levels(bare_vllm, Dialogue(asked, answer))
    cached = bare_vllm.number("vllm:prompt_tokens_cached_total") - before
    assert cached >= usage["prompt_tokens"] + usage["completion_tokens"] - BLOCK

    never_drawn = answer.replace("garden", "spring").replace("water", "morning")
    await levels(bare_vllm, Dialogue(asked, never_drawn))
    cached_alone = bare_vllm.number("vllm:prompt_tokens_cached_total") - before - cached
    assert cached_alone <= usage["prompt_tokens"]
