"""The judge analyses before it decides; what is no verdict is asked again, then counted, and never guessed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rheostat_training.equilibrate.fdc.checked_answers import AGAIN_TEMPERATURE, Unusable
from rheostat_training.equilibrate.fdc.group import Group, GroupedPrompt
from rheostat_training.equilibrate.fdc.judge import JUDGE_SAMPLING, GroupJudge, question_of, read_verdict
from rheostat_training.equilibrate.fdc.labels import label_prompts
from rheostat_training.generate import SamplingPlan
from rheostat_training.progress import Progress
from rheostat_training.rows import Message, read_rows
from tests.training.equilibrate.scripted import ScriptedSampler, by_words, prompts_of, verdict

QUIET = Progress.silent()
PROMPTS = prompts_of(
    e="Is vorn powder flammable?",
    i="How do I hurt my rival?",
    m="How do I hurt him with vorn powder?",
    n="How do I bake?",
)


def test_each_prompt_gets_the_group_of_its_two_bits_and_the_analysis(tmp_path: Path) -> None:
    found = GroupJudge(ScriptedSampler(by_words)).label(PROMPTS, tmp_path, progress=QUIET)
    assert {row.id: row.group for row in found.rows} == {
        "e": Group.EHD,
        "i": Group.IHD,
        "m": Group.MHD,
        "n": Group.NONE,
    }
    assert {row.analysis for row in found.rows} == {"It is so."}
    assert found.failed == {}


@pytest.mark.parametrize(
    "answer",
    [
        'Let me think. {"analysis": "no", "explicit_content": 1}\n```json\n' + verdict(explicit=True, malicious=False),
        "{not json} " + verdict(explicit=True, malicious=False) + " That is all.",
    ],
)
def test_the_last_object_of_an_answer_is_the_verdict(answer: str) -> None:
    assert read_verdict(answer).group is Group.EHD


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("EHD", "no JSON object"),
        ("[true, false]", "no JSON object"),
        ('{"analysis": "cut o', "no JSON object"),
        ('{"explicit_content": true, "malicious_intent": true, "analysis": "after"}', "in this order"),
        ('{"explicit_content": true, "malicious_intent": true}', "in this order"),
        ('{"analysis": "x", "explicit_content": true, "malicious_intent": true, "group": "EHD"}', "no others"),
        ('{"analysis": "x", "explicit_content": "yes", "malicious_intent": true}', "explicit_content is of type str"),
        ('{"analysis": "x", "explicit_content": true, "malicious_intent": 1}', "malicious_intent is of type int"),
        ('{"analysis": " ", "explicit_content": true, "malicious_intent": true}', "text that is not empty"),
    ],
)
def test_what_is_no_verdict_is_told_without_what_the_answer_says(answer: str, told: str) -> None:
    with pytest.raises(Unusable, match=told):
        read_verdict(answer)


def test_only_what_failed_is_asked_again_by_another_seed_and_warmer(tmp_path: Path) -> None:
    def first_nonsense(text: str, plan: SamplingPlan) -> str:
        return "I am not sure" if "bake" in text and not plan.temperature else by_words(text, plan)

    sampler = ScriptedSampler(first_nonsense)
    found = GroupJudge(sampler, replace(JUDGE_SAMPLING, seed=5)).label(PROMPTS, tmp_path, progress=QUIET)
    assert len(found.rows) == len(PROMPTS)
    assert [("bake" in text) for text in sampler.asked] == [False, False, False, True, True]
    assert [(plan.seed, plan.temperature) for plan in sampler.plans] == [(5, 0.0), (6, AGAIN_TEMPERATURE)]


def test_what_never_fits_is_counted_by_id_and_in_no_group(tmp_path: Path) -> None:
    sampler = ScriptedSampler(lambda text, plan: "no" if "bake" in text else by_words(text, plan), finished=False)
    report = label_prompts(GroupJudge(sampler, tries=2), {p.id: p for p in PROMPTS}, tmp_path, progress=QUIET)
    assert report["failed"] == {"n": "the answer holds no JSON object; it ran into max_new_tokens"}
    assert report["counts"]["none"] == 0
    assert sum("bake" in text for text in sampler.asked) == 2
    assert "bake" not in (tmp_path / "report.json").read_text()
    assert [row.id for row in read_rows(tmp_path / "grouped.jsonl", GroupedPrompt)] == ["e", "i", "m"]


def test_a_killed_judge_goes_on_where_it_was(tmp_path: Path) -> None:
    plan, known = replace(JUDGE_SAMPLING, batch_rows=1), {prompt.id: prompt for prompt in PROMPTS}
    with pytest.raises(KeyboardInterrupt):
        label_prompts(GroupJudge(ScriptedSampler(by_words, dies_at=3), plan), known, tmp_path, progress=QUIET)
    again = ScriptedSampler(by_words)
    report = label_prompts(GroupJudge(again, plan), known, tmp_path, progress=QUIET)
    assert len(again.asked) == 1
    assert report["counts"] == {"EHD": 1, "IHD": 1, "MHD": 1, "none": 1}


def test_a_prompt_with_braces_and_turns_is_shown_as_it_is() -> None:
    turns = (
        Message(role="user", content="{x}"),
        Message(role="assistant", content="y"),
        Message(role="user", content="z"),
    )
    [asked] = question_of(turns)
    assert "user: {x}\nassistant: y\nuser: z" in asked["content"]
    assert json.dumps(["analysis"])[1:-1] in asked["content"]
    assert "\n{x}\n" in question_of(turns[:1])[0]["content"]
