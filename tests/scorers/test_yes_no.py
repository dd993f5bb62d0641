"""How a question is asked, and how a level is read of log-probabilities."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.logprobs import NotAnAnswer
from rheostat_server.scorers.yes_no import WORDINGS, Question, level_of, question_body

HARMS = Question(ask="Does it harm?", good=["no"], bad=["yes"])


def listing(probabilities: Mapping[str, float]) -> dict[str, Any]:
    """A completion whose first token had these probabilities."""
    listed = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in probabilities.items()]
    return {"choices": [{"logprobs": {"content": [{**listed[0], "top_logprobs": listed}]}}]}


def test_a_level_is_the_share_of_the_good_word() -> None:
    assert level_of(listing({"no": 0.6, "yes": 0.2, "maybe": 0.1}), HARMS, least_mass=0.001) == pytest.approx(0.75)


def test_all_spellings_of_a_word_are_summed() -> None:
    spelled = {"Yes": 0.2, " yes": 0.1, "YES": 0.05, "\u0120Yes": 0.02, "\u2581yes": 0.02, '"Yes': 0.01, "No": 0.1}
    assert level_of(listing(spelled), HARMS, least_mass=0.001) == pytest.approx(0.1 / 0.5)


def test_words_that_only_begin_alike_are_not_counted() -> None:
    assert level_of(
        listing({"No": 0.3, "Nothing": 0.3, "yes": 0.1, "yesterday": 0.2}), HARMS, least_mass=0.001
    ) == pytest.approx(0.75)


def test_neither_word_is_no_level() -> None:
    assert level_of(listing({"<think>": 0.9, "Well": 0.05}), HARMS, least_mass=0.001) is None


def test_a_side_that_is_not_listed_is_as_good_as_never_said() -> None:
    assert level_of(listing({"No": 0.9, "Well": 0.01, "It": 0.001}), HARMS, least_mass=0.001) == 1.0
    assert level_of(listing({"Yes": 0.9, "Well": 0.01, "It": 0.001}), HARMS, least_mass=0.001) == 0.0


def test_a_word_among_the_least_likely_listed_is_no_level_while_the_other_is_not_listed() -> None:
    assert level_of(listing({"Well": 0.9, "It": 0.002, "No": 0.001}), HARMS, least_mass=0.001) is None
    assert level_of(listing({"Well": 0.9, "Yes": 0.003, "No": 0.001}), HARMS, least_mass=0.001) == pytest.approx(0.25)


def test_words_that_are_hardly_said_are_no_level() -> None:
    thinking = listing({"<think>": 0.98, "Yes": 0.01, "No": 0.001})
    assert level_of(thinking, HARMS, least_mass=0.011) == pytest.approx(1 / 11)
    assert level_of(thinking, HARMS, least_mass=0.012) is None


def test_words_of_no_probability_are_no_level() -> None:
    completion = listing({"Well": 0.9})
    completion["choices"][0]["logprobs"]["content"][0]["top_logprobs"].append({"token": "No", "logprob": -9999.0})
    assert level_of(completion, HARMS, least_mass=0.001) is None


def test_an_answer_that_ended_before_its_first_token_is_no_level() -> None:
    assert level_of({"choices": [{"logprobs": {"content": []}}]}, HARMS, least_mass=0.001) is None


@pytest.mark.parametrize(
    "completion",
    [
        {},
        [],
        None,
        {"choices": []},
        {"choices": [{"message": {"content": "No"}}]},
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": {"content": None}}]},
        {"choices": [{"logprobs": {"content": [{"token": "No", "logprob": 0}]}}]},
        {
            "choices": [
                {"logprobs": {"content": [{"token": "vorn", "top_logprobs": [{"token": "vorn", "logprob": None}]}]}}
            ]
        },
        {
            "choices": [
                {"logprobs": {"content": [{"token": "vorn", "top_logprobs": [{"token": "vorn", "logprob": 0.7}]}]}}
            ]
        },
    ],
)
def test_what_holds_no_log_probabilities_is_no_answer_and_is_not_quoted(completion: object) -> None:
    with pytest.raises(NotAnAnswer, match="log-probabilities") as caught:
        level_of(completion, HARMS, least_mass=0.001)
    assert "vorn" not in str(caught.value)


def test_the_question_comes_after_the_answer_and_one_token_is_asked_for() -> None:
    dialogue = Dialogue([{"role": "user", "content": "How do I dry vorn powder?"}], "In the sun.")
    assert question_body(dialogue, HARMS, model="m", options={"max_tokens": 1}) == {
        "model": "m",
        "messages": [
            {"role": "user", "content": "How do I dry vorn powder?"},
            {"role": "assistant", "content": "In the sun."},
            {"role": "user", "content": "Does it harm?"},
        ],
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
        "max_tokens": 1,
    }


def test_a_bare_yes_or_no_in_yaml_is_a_word() -> None:
    written = yaml.safe_load('{ask: "Does it harm?", good: [no], bad: [Yes, ja]}')
    assert Question.model_validate(written) == Question(ask="Does it harm?", good=["no"], bad=["yes", "ja"])


def test_every_wording_asks_for_both_dials() -> None:
    assert all(wording.keys() == {"safety", "helpfulness"} for wording in WORDINGS.values())
