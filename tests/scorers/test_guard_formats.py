"""What a guard is shown, and what its words mean: no model is needed."""

import math
import subprocess
import sys

import pytest

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.guard_formats import (
    FORMATS,
    GuardFormat,
    granite_guardian,
    llama_guard,
    lowest,
    qwen3guard,
    shieldgemma,
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_a_format_needs_no_torch() -> None:
    code = (
        "import sys, rheostat_server.scorers.spec, rheostat_server.scorers.guard;"
        "assert not {'torch', 'transformers', 'jinja2'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_system_messages_are_not_shown_and_turns_of_one_role_are_joined() -> None:
    dialogue = Dialogue(
        [{"role": "system", "content": "Obey."}, assistant("Hello."), user("Hi."), user("Vorn powder?")], "It is mild."
    )
    assert llama_guard().turns(dialogue) == [user("Hi.\n\nVorn powder?"), assistant("It is mild.")]


def test_the_beginning_of_an_answer_that_the_caller_wrote_is_judged_with_the_rest() -> None:
    turns = llama_guard().turns(Dialogue([user("Vorn powder?"), assistant("Sure:")], "dry it."))
    assert turns == [user("Vorn powder?"), assistant("Sure:\n\ndry it.")]


def test_shieldgemma_is_shown_the_last_exchange_alone() -> None:
    dialogue = Dialogue([user("One?"), assistant("Yes."), user("Two?")], "No.")
    assert shieldgemma().turns(dialogue) == [user("Two?"), assistant("No.")]
    assert len(llama_guard().turns(dialogue) or []) == 4


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_answer_is_nothing_to_judge(answer: str) -> None:
    assert llama_guard().turns(Dialogue([user("Vorn powder?")], answer)) is None


def test_an_answer_to_nobody_is_nothing_to_judge() -> None:
    assert llama_guard().turns(Dialogue([{"role": "system", "content": "Obey."}], "It is mild.")) is None


def test_the_level_is_the_mean_of_the_verdicts_levels_by_their_probabilities() -> None:
    level = qwen3guard().level({"Safe": 0.5, "Controversial": 0.2, "Unsafe": 0.1}, least_mass=0.1)
    assert level == pytest.approx((0.5 + 0.2 * 0.5) / 0.8)


def test_controversial_stands_for_what_the_operator_says() -> None:
    assert qwen3guard(controversial=0.2).level({"Controversial": 0.9}, least_mass=0.1) == pytest.approx(0.2)


@pytest.mark.parametrize("shares", [{"safe": 0.05, "unsafe": 0.04}, {"safe": 0.0, "unsafe": 0.0}, {"safe": math.nan}])
def test_a_guard_that_hardly_says_a_verdict_could_not_judge(shares: dict[str, float]) -> None:
    assert llama_guard().level(shares, least_mass=0.1) is None


def test_tokens_count_for_the_only_verdict_that_they_begin() -> None:
    logprobs = {" Un": math.log(0.2), "Safe": math.log(0.3), " safe": math.log(0.3), "\n": math.log(0.1), "The": -9.0}
    assert qwen3guard().level_of_tokens(logprobs.items(), least_mass=0.1) == pytest.approx(0.6 / 0.8)


def test_tokens_that_begin_no_verdict_are_no_judgement() -> None:
    assert llama_guard().level_of_tokens([("The", 0.0), (" ", -1.0)], least_mass=0.1) is None


@pytest.mark.parametrize(
    ("name", "tokens", "index"),
    [
        ("llama-guard", ["\n\n", "unsafe", "\n", "S1"], 1),
        ("llama-guard", ["safe"], 0),
        ("qwen3guard", ["Safety", ":", " Safe", "\n"], 2),
        ("granite-guardian", ["<think>", "\n</think>\n", "<", "score", ">", " no", " </"], 5),
        ("granite-guardian-3.2", ["No"], 0),
        ("qwen3guard", ["I", " think", " so"], None),
        ("llama-guard", [], None),
    ],
)
def test_the_verdict_is_found_in_what_a_guard_wrote(name: str, tokens: list[str], index: int | None) -> None:
    format = {known: make() for known, make in FORMATS.items() if known == name}
    assert [found.verdict_index(tokens) for found in format.values()] == [index]


def test_an_answer_is_as_safe_as_by_the_worst_criterion() -> None:
    assert lowest([0.9, 0.2, 0.7]) == 0.2
    assert lowest([0.9, None]) is None
    assert lowest([]) is None


def test_every_risk_is_a_criterion_of_its_own() -> None:
    criteria = granite_guardian(["harm", "violence"]).criteria
    assert [criterion["guardian_config"] for criterion in criteria] == [
        {"criteria_id": "harm"},
        {"criteria_id": "violence"},
    ]


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ({"safe": 1.0}, "two or more"),
        ({"safe": 1.0, " Safe": 0.0}, "a word of its own"),
        ({"safe": 1.0, "unsafe": -1.0}, "a level is from 0 to 1"),
    ],
)
def test_a_format_that_makes_no_sense_is_refused(verdicts: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GuardFormat("mine", verdicts)


def test_a_format_without_a_criterion_is_refused() -> None:
    with pytest.raises(ValueError, match="criteria is empty"):
        GuardFormat("mine", {"safe": 1.0, "unsafe": 0.0}, criteria=())
