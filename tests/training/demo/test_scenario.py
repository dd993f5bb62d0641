"""The world is large, its risk groups say what they mean, and held-out prompts stay unseen."""

from random import Random

import pytest

from rheostat_training.demo import oracle
from rheostat_training.demo.answer import Manner, write_answer
from rheostat_training.demo.asking import draw_prompts
from rheostat_training.demo.corpus import dialogues
from rheostat_training.demo.domains import DOMAINS
from rheostat_training.demo.labelled import labelled_rows, rows_of_both
from rheostat_training.demo.risks import PEOPLE, SUBSTANCES, RiskGroup
from rheostat_training.demo.scenario import (
    LOOK_ALIKES,
    held_out_look_alikes,
    held_out_scenarios,
    look_alikes,
    new_look_alikes,
    scenarios,
    training_look_alikes,
    training_scenarios,
    without_control_text,
)


def test_there_are_at_least_twelve_domains_of_several_topics() -> None:
    assert len(DOMAINS) >= 12
    assert all(len(domain.topics) == 6 and len(domain.steps) == 8 for domain in DOMAINS)


def test_there_are_thousands_of_distinct_prompts_in_each_group() -> None:
    for group in RiskGroup:
        assert len(training_scenarios(group)) + len(held_out_scenarios(group)) > 2000


def test_a_prompt_names_a_substance_or_a_person_as_its_group_says() -> None:
    for scenario in scenarios().values():
        explicit = scenario.group in (RiskGroup.EHD, RiskGroup.MHD)
        malicious = scenario.group in (RiskGroup.IHD, RiskGroup.MHD)
        assert bool(scenario.substance) is explicit
        assert bool(scenario.person) is malicious
        assert scenario.substance in scenario.prompt
        assert scenario.person in scenario.prompt


def test_held_out_prompts_are_balanced_and_always_the_same() -> None:
    prompts = oracle.held_out_prompts(300)
    groups = [oracle.risk_group(prompt) for prompt in prompts]
    assert prompts == oracle.held_out_prompts(300)
    assert len(set(prompts)) == 300
    assert {groups.count(group) for group in RiskGroup} == {75}


def test_more_held_out_prompts_than_there_are_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="ask for 0 to"):
        oracle.held_out_prompts(10**6)


def test_no_training_data_holds_a_held_out_prompt() -> None:
    unseen = set(oracle.held_out_prompts(2000))
    asked = {prompt.text for prompt in draw_prompts(500, seed=0).values()}
    said = {message["content"] for dialogue in dialogues(0, 0, 3000) for message in dialogue.messages}
    labelled = {row.messages[0]["content"] for row in labelled_rows("safety", 2000, purpose="scorers", seed=0)}
    labelled |= {row.messages[0]["content"] for row in rows_of_both(2000, purpose="selector", seed=0)}
    assert not unseen & (asked | labelled | {without_control_text(text) for text in said})


def test_each_kind_of_scorer_learns_from_answers_of_its_own() -> None:
    made = [
        *(labelled_rows("safety", 300, purpose=purpose, seed=0) for purpose in ("scorers", "judges")),
        labelled_rows("helpfulness", 300, purpose="scorers", seed=0),
        rows_of_both(300, purpose="selector", seed=0),
        rows_of_both(300, purpose="selector", seed=1),
    ]
    answers = [row.answer for rows in made for row in rows]
    assert len({*answers}) == len(answers)


def test_rows_of_both_levels_say_what_the_oracle_reads() -> None:
    read = [
        (oracle.levels(str(row.messages[0]["content"]), row.answer), row.level)
        for row in rows_of_both(300, purpose="selector", seed=0)
    ]
    whole = [(found, level) for found, level in read if found is not None]
    assert 100 < len(whole) < 200
    assert all(found == level for found, level in whole)


def test_look_alikes_are_benign_prompts_that_name_a_person_or_a_substance() -> None:
    for scenario in look_alikes().values():
        assert scenario.group is RiskGroup.NONE
        assert any(word in scenario.prompt for word in (*SUBSTANCES, *PEOPLE))
    assert not look_alikes().keys() & scenarios().keys()


def test_the_oracle_reads_answers_to_look_alikes_and_training_never_sees_the_held_out_ones() -> None:
    held_out, training = held_out_look_alikes(), training_look_alikes()
    assert {*held_out} | {*training} == {*look_alikes(LOOK_ALIKES).values()}
    assert not {each.prompt for each in held_out} & {each.prompt for each in training}
    assert not {*new_look_alikes()} & {*look_alikes(LOOK_ALIKES).values()}
    assert {*new_look_alikes()} < {*look_alikes().values()}
    for scenario in held_out[:20]:
        refusal = write_answer(scenario, Manner(0, 4, 0, 0), Random(scenario.prompt))
        helping = write_answer(scenario, Manner(4, 2, 0, 0), Random(scenario.prompt))
        assert oracle.levels(scenario.prompt, refusal) == (1.0, 0.0)
        assert oracle.levels(scenario.prompt, helping) == (0.5, 1.0)
        assert oracle.declines(scenario.prompt, refusal)
        assert not oracle.declines(scenario.prompt, helping)
