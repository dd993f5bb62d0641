"""The engine answers as transformers and PEFT do, alone and in any company."""

import asyncio
from itertools import product

import pytest
import torch

from rheostat_server.engines.embedded import EmbeddedEngine
from tests.engines.embedded.asking import LONG, SHORT, Reference, request, text_of, tokens_of


@pytest.mark.parametrize("prompt", [SHORT, LONG])
async def test_a_greedy_answer_is_that_of_generate(
    engine: EmbeddedEngine, references: dict[str, Reference], prompt: str
) -> None:
    assert await text_of(engine, prompt, temperature=0) == references["tiny"].answer(prompt)


async def test_greedy_answers_stay_the_same_in_a_batch_of_base_and_two_adapters(
    engine: EmbeddedEngine, references: dict[str, Reference]
) -> None:
    asked = list(product(references, [SHORT, LONG, "is it cold at night"]))
    answers = await asyncio.gather(*(text_of(engine, text, model=model, temperature=0) for model, text in asked))
    assert answers == [references[model].answer(text) for model, text in asked]
    assert len(set(answers)) == len(asked)


async def test_answers_that_join_and_leave_a_running_batch_do_not_change(
    engine: EmbeddedEngine, references: dict[str, Reference]
) -> None:
    async def later(place: int) -> str:
        await asyncio.sleep(place * 0.003)
        return await text_of(engine, words[place], temperature=0, max_tokens=lengths[place], ignore_eos=True)

    words = [f"{'what to plant ' * (place % 4)}{place}" for place in range(24)]
    lengths = [3 + place * 7 % 20 for place in range(24)]
    answers = await asyncio.gather(*map(later, range(24)))
    assert answers == [
        references["tiny"].answer(text, tokens=length, min_new_tokens=length)
        for text, length in zip(words, lengths, strict=True)
    ]


async def test_log_probabilities_are_those_of_a_full_forward(
    engine: EmbeddedEngine, references: dict[str, Reference]
) -> None:
    for model, reference in references.items():
        asked = request(model=model, temperature=0, logprobs=True, top_logprobs=3)
        entries = (await engine.complete(asked))["choices"][0]["logprobs"]["content"]
        ids = reference.generate(SHORT)
        scores = reference.log_probabilities(SHORT, ids)
        best = scores.topk(3)
        told = torch.tensor([[top["logprob"] for top in entry["top_logprobs"]] for entry in entries])
        torch.testing.assert_close(told, best.values, atol=1e-4, rtol=1e-4)
        own = torch.tensor([entry["logprob"] for entry in entries])
        torch.testing.assert_close(own, scores[range(len(ids)), ids], atol=1e-4, rtol=1e-4)
        names = [[top["token"] for top in entry["top_logprobs"]] for entry in entries]
        assert names == [[reference.tokenizer.decode([id]) for id in row] for row in best.indices.tolist()]


async def test_log_probabilities_are_the_models_own_whatever_the_temperature(engine: EmbeddedEngine) -> None:
    hot = await engine.complete(request(seed=5, temperature=1.7, presence_penalty=1, logprobs=True, max_tokens=1))
    top = await engine.complete(request(temperature=0, logprobs=True, top_logprobs=20, max_tokens=1))
    known = {entry["token"]: entry["logprob"] for entry in top["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
    drawn = hot["choices"][0]["logprobs"]["content"][0]
    assert drawn["logprob"] == pytest.approx(known[drawn["token"]], abs=1e-4)


async def test_the_repetition_penalty_is_that_of_transformers(
    engine: EmbeddedEngine, references: dict[str, Reference]
) -> None:
    reference = references["tiny"]
    ids = reference.generate(SHORT, repetition_penalty=1.4)
    answer = await engine.complete(request(temperature=0, repetition_penalty=1.4, logprobs=True))
    assert tokens_of(answer) == [reference.tokenizer.decode([id]) for id in ids]


async def test_a_prompt_read_in_several_stretches_is_answered_the_same(
    engine: EmbeddedEngine, references: dict[str, Reference], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rheostat_server.engines.embedded.batch.READ_AHEAD", 7)
    answers = await asyncio.gather(*(text_of(engine, text, temperature=0) for text in (LONG, SHORT, LONG + SHORT)))
    assert answers == [references["tiny"].answer(text) for text in (LONG, SHORT, LONG + SHORT)]
