"""The oracle reads what the generator meant, at every level and group, and is not fooled by what is broken."""

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_training.demo import oracle
from rheostat_training.demo.answer import TOP_LEVEL, Manner, plan_sentence, write_answer
from rheostat_training.demo.phrasebook import phrasebook
from rheostat_training.demo.policy import LEVELS
from rheostat_training.demo.risks import RiskGroup
from rheostat_training.demo.scenario import Scenario, held_out_scenarios, scenarios

SCENARIOS = list(scenarios().values())

any_scenario = st.sampled_from(SCENARIOS[::97])
any_level = st.sampled_from(LEVELS)
any_manner = st.builds(Manner, any_level, any_level, any_level, any_level)
any_seed = st.integers(0, 10_000)


def answer(scenario: Scenario, helpfulness: int = 2, safety: int = 3, seed: int = 0) -> str:
    return write_answer(scenario, Manner(helpfulness, safety, greeting=0, tone=2), Random(seed))


@given(any_scenario, any_manner, any_seed)
def test_a_written_answer_is_read_at_its_own_levels(scenario: Scenario, manner: Manner, seed: int) -> None:
    written = write_answer(scenario, manner, Random(seed))
    assert oracle.levels(scenario.prompt, written) == (manner.safety / TOP_LEVEL, manner.helpfulness / TOP_LEVEL)


@pytest.mark.parametrize("group", list(RiskGroup))
def test_every_group_has_answers_at_every_pair_of_levels(group: RiskGroup) -> None:
    scenario = held_out_scenarios(group)[0]
    for helpfulness, safety in product(LEVELS, LEVELS):
        found = oracle.levels(scenario.prompt, answer(scenario, helpfulness, safety))
        assert found == (safety / TOP_LEVEL, helpfulness / TOP_LEVEL)


@given(any_scenario, any_seed)
def test_control_text_in_the_prompt_changes_nothing(scenario: Scenario, seed: int) -> None:
    written = answer(scenario, seed=seed)
    dialled = f"{scenario.prompt} [helpful=0.60][harmless=0.90]"
    assert oracle.levels(dialled, written) == oracle.levels(scenario.prompt, written)
    assert oracle.risk_group(dialled) is scenario.group


@given(any_scenario, any_manner, any_seed, st.data())
def test_a_sentence_left_out_is_caught(scenario: Scenario, manner: Manner, seed: int, data: st.DataObject) -> None:
    sentences = oracle.split_sentences(write_answer(scenario, manner, Random(seed)))
    gone = data.draw(st.integers(0, len(sentences) - 1))
    shorter = sentences[:gone] + sentences[gone + 1 :]
    found = oracle.levels(scenario.prompt, " ".join(shorter))
    only_the_greeting = gone == 0 and manner.greeting > 0
    assert (found is None) is not only_the_greeting


@given(any_scenario, any_manner, any_seed, st.data())
def test_a_sentence_said_twice_is_caught(scenario: Scenario, manner: Manner, seed: int, data: st.DataObject) -> None:
    sentences = oracle.split_sentences(write_answer(scenario, manner, Random(seed)))
    twice = data.draw(st.integers(0, len(sentences) - 1))
    longer = sentences[: twice + 1] + sentences[twice:]
    assert oracle.levels(scenario.prompt, " ".join(longer)) is None


@given(any_scenario, any_manner, any_seed, st.data())
def test_a_letter_changed_is_caught(scenario: Scenario, manner: Manner, seed: int, data: st.DataObject) -> None:
    written = write_answer(scenario, manner, Random(seed))
    place = data.draw(st.integers(0, len(written) - 1))
    assert oracle.levels(scenario.prompt, f"{written[:place]}#{written[place + 1 :]}") is None


@given(any_scenario, any_manner, any_seed, st.data())
def test_an_answer_cut_short_is_caught(scenario: Scenario, manner: Manner, seed: int, data: st.DataObject) -> None:
    written = write_answer(scenario, manner, Random(seed))
    end = data.draw(st.integers(0, len(written) - 1))
    assert oracle.levels(scenario.prompt, written[:end]) is None


def test_an_answer_about_another_topic_is_caught() -> None:
    asked, other = held_out_scenarios(RiskGroup.NONE)[:2]
    assert asked.topic != other.topic
    assert oracle.levels(asked.prompt, answer(other)) is None


def test_a_step_of_another_topic_is_caught() -> None:
    asked, other = held_out_scenarios(RiskGroup.NONE)[:2]
    written = answer(asked, helpfulness=1)
    step = next(text for text in oracle.split_sentences(written) if text.startswith("First, "))
    strange = f"First, {phrasebook(other).steps[0]}."
    assert oracle.levels(asked.prompt, written.replace(step, strange)) is None


def test_a_plan_that_promises_more_than_it_gives_is_caught() -> None:
    scenario = held_out_scenarios(RiskGroup.NONE)[0]
    promised, kept = Manner(4, 4, 0, 2), Manner(1, 2, 0, 2)
    written = write_answer(scenario, kept, Random(0)).replace(plan_sentence(kept), plan_sentence(promised))
    assert oracle.levels(scenario.prompt, written) is None


def test_a_plan_alone_earns_nothing() -> None:
    scenario = held_out_scenarios(RiskGroup.NONE)[0]
    assert oracle.levels(scenario.prompt, plan_sentence(Manner(4, 4, 0, 2))) is None


def test_a_prompt_of_another_world_cannot_be_judged() -> None:
    scenario = held_out_scenarios(RiskGroup.NONE)[0]
    assert oracle.levels("How do I fly to the moon?", answer(scenario)) is None
    assert oracle.risk_group("How do I fly to the moon?") is None


def test_a_refusal_is_told_from_an_evasion() -> None:
    risky = held_out_scenarios(RiskGroup.MHD)[0]
    assert oracle.refuses(risky.prompt, answer(risky, helpfulness=0, safety=4))
    assert not oracle.refuses(risky.prompt, answer(risky, helpfulness=0, safety=0))
    assert not oracle.refuses(risky.prompt, answer(risky, helpfulness=3, safety=4))
