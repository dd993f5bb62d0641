"""Whole answers: what OpenAI's fields ask for is what comes."""

import pytest

from tests.engines.suite.served import Served, text_of


def test_a_whole_answer_is_openais_completion_with_a_receipt(served: Served) -> None:
    completion = served.openai().chat.completions.create(**served.body())
    assert completion.object == "chat.completion"
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content
    assert completion.model_extra is not None
    assert completion.model_extra["control"]["mode"] == "off"


def test_the_same_question_has_the_same_answer_at_temperature_0(served: Served) -> None:
    assert text_of(served.answer(served.body())) == text_of(served.answer(served.body()))


def test_max_tokens_ends_an_answer(served: Served) -> None:
    completion = served.openai().chat.completions.create(**served.body(max_tokens=5))
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 5


def test_max_completion_tokens_ends_an_answer_too(served: Served) -> None:
    body = served.body(max_tokens=None, max_completion_tokens=4)
    completion = served.openai().chat.completions.create(**body)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 4


def test_a_stop_text_ends_an_answer_and_is_not_in_it(served: Served) -> None:
    whole = text_of(served.answer(served.body(max_tokens=24)))
    stop = whole[len(whole) // 2 :][:3]
    choice = served.answer(served.body(max_tokens=24, stop=stop))["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_n_candidates_differ(served: Served) -> None:
    completion = served.openai().chat.completions.create(**served.body(n=3, temperature=1, seed=1))
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in completion.choices}) == 3
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 36


def test_a_seed_repeats_an_answer_and_another_seed_does_not(served: Served) -> None:
    first, again, other = (
        text_of(served.answer(served.body(temperature=1, seed=seed, max_tokens=20))) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_answers_without_a_seed_differ(served: Served) -> None:
    first, again = (text_of(served.answer(served.body(temperature=1, max_tokens=20))) for _ in range(2))
    assert first != again


def test_logprobs_come_for_every_token(served: Served) -> None:
    completion = served.openai().chat.completions.create(**served.body(logprobs=True, top_logprobs=2, max_tokens=6))
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 6
    assert "".join(entry.token for entry in logprobs.content) == completion.choices[0].message.content
    assert all(entry.logprob < 0 for entry in logprobs.content)
    assert all(len(entry.top_logprobs) >= 2 for entry in logprobs.content)


def test_usage_adds_up(served: Served) -> None:
    usage = served.answer(served.body())["usage"]
    assert usage["prompt_tokens"] > 5
    assert usage["completion_tokens"] == 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("content", ["Hello", [{"type": "text", "text": "Hello"}]])
def test_a_conversation_of_several_turns_is_answered(served: Served, content: object) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": content},
    ]
    assert text_of(served.answer(served.body(messages=messages)))
