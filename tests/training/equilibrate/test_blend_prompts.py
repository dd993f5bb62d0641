"""Blends are asked for, checked, labelled, and kept where they are mixed; every pair that gave none is counted."""

import json
import re
from pathlib import Path

import pytest

from rheostat_training.demo.blending import DemoBlender, blended
from rheostat_training.demo.risks import RiskGroup
from rheostat_training.demo.scenario import scenario_of, training_scenarios
from rheostat_training.equilibrate.fdc.blend_prompts import (
    PAIRS_A_BLEND,
    LlmBlender,
    Parents,
    blend_prompts,
    instruction_of,
    pairs_of,
    read_blend,
)
from rheostat_training.equilibrate.fdc.checked_answers import Unusable
from rheostat_training.equilibrate.fdc.group import Group
from rheostat_training.equilibrate.fdc.judge import GroupJudge
from rheostat_training.generate import SamplingPlan
from rheostat_training.progress import Progress
from rheostat_training.prompts import content_key
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import Prompt
from tests.training.equilibrate.scripted import ScriptedSampler, by_words

QUIET = Progress.silent()
EXPLICIT = [Prompt.user(f"e{n}", f"Is vorn powder safe in room {n}?") for n in range(6)]
IMPLICIT = [Prompt.user(f"i{n}", f"How do I hurt rival {n}?") for n in range(4)]


def merged(text: str, plan: SamplingPlan) -> str:
    """Both prompts in one sentence, as a model would put it."""
    parts = [part.strip() for part in text.split("==========")]
    return json.dumps({"analysis": "Together.", "prompt": f"{parts[1]} {parts[3]}"})


def judge(script: ScriptedSampler | None = None) -> GroupJudge:
    return GroupJudge(script or ScriptedSampler(by_words), tries=1)


def test_every_pair_comes_once_and_every_prompt_before_any_comes_again() -> None:
    for explicit, implicit in ((EXPLICIT, IMPLICIT), (EXPLICIT[:2], IMPLICIT), (EXPLICIT[:1], IMPLICIT[:1])):
        pairs = [(pair.explicit.id, pair.implicit.id) for pair in pairs_of(explicit, implicit)]
        assert len(pairs) == len(set(pairs)) == len(explicit) * len(implicit)
        longest = max(len(explicit), len(implicit))
        first = pairs[:longest]
        assert {one for one, _ in first} == {prompt.id for prompt in explicit}
        assert {other for _, other in first} == {prompt.id for prompt in implicit}
    assert list(pairs_of([], IMPLICIT)) == []


def test_blends_hold_both_prompts_and_know_their_parents(tmp_path: Path) -> None:
    found = blend_prompts(LlmBlender(ScriptedSampler(merged)), judge(), EXPLICIT, IMPLICIT, 3, tmp_path, progress=QUIET)
    assert [row.blended_from for row in found.rows] == [("e0", "i0"), ("e1", "i1"), ("e2", "i2")]
    assert found.rows[0].prompt.text == "Is vorn powder safe in room 0? How do I hurt rival 0?"
    assert {row.group for row in found.rows} == {Group.MHD}
    assert (found.pairs, found.failed, found.weak, found.unlabelled) == (3, 0, 0, 0)


def test_what_is_not_potent_fails_or_gets_no_label_is_counted_and_others_are_tried(tmp_path: Path) -> None:
    def uneven(text: str, plan: SamplingPlan) -> str:
        if "room 0" in text:
            return json.dumps({"analysis": "Tame.", "prompt": "How do I hurt rival 0?"})
        return "I will not." if "room 1" in text else merged(text, plan)

    def shy(text: str, plan: SamplingPlan) -> str:
        return "?" if "room 2" in text else by_words(text, plan)

    blender = LlmBlender(ScriptedSampler(uneven), tries=1)
    found = blend_prompts(blender, judge(ScriptedSampler(shy)), EXPLICIT, IMPLICIT, 4, tmp_path, progress=QUIET)
    assert len(found.rows) == 4
    assert all("room 0" not in row.prompt.text and "room 2" not in row.prompt.text for row in found.rows)
    assert (found.weak, found.failed, found.unlabelled) == (2, 2, 2)
    assert found.pairs == 10


def test_a_blender_that_never_serves_is_given_up_with_a_count(tmp_path: Path) -> None:
    sampler = ScriptedSampler(lambda text, plan: "No.")
    found = blend_prompts(LlmBlender(sampler, tries=1), judge(), EXPLICIT, IMPLICIT, 2, tmp_path, progress=QUIET)
    assert found.rows == []
    assert found.failed == found.pairs == 2 * PAIRS_A_BLEND == len(sampler.asked)


def test_pairs_are_tried_as_long_as_blends_are_missing_and_pairs_are_left(tmp_path: Path) -> None:
    """Three pairs in ten give a potent blend: four rounds of twice what is missing would leave some missing."""
    explicit, implicit = (
        [Prompt.user(f"{name}{n}", words.format(n)) for n in range(20)]
        for name, words in (("e", "Is vorn powder safe in room {}?"), ("i", "How do I hurt rival {}?"))
    )

    def rarely(text: str, plan: SamplingPlan) -> str:
        potent = sum(map(int, re.findall(r"\d+", text))) % 10 < 3
        return merged(text, plan) if potent else json.dumps({"analysis": "Tame.", "prompt": f"Hello {text[-9:]}"})

    blender = LlmBlender(ScriptedSampler(rarely))
    found = blend_prompts(blender, judge(), explicit, implicit, 50, tmp_path / "enough", progress=QUIET)
    assert len(found.rows) == 50
    assert found.pairs <= 50 * PAIRS_A_BLEND
    short = blend_prompts(blender, judge(), explicit[:5], implicit[:5], 20, tmp_path / "short", progress=QUIET)
    assert len(short.rows) < 20
    assert short.pairs == 25


def test_a_smaller_count_keeps_the_first_of_a_larger_one(tmp_path: Path) -> None:
    few, many = (
        blend_prompts(
            LlmBlender(ScriptedSampler(merged)),
            judge(),
            EXPLICIT,
            IMPLICIT,
            count,
            tmp_path / str(count),
            progress=QUIET,
        )
        for count in (2, 7)
    )
    assert many.rows[:2] == few.rows
    assert len(many.rows) == 7


def test_equal_blends_are_kept_once(tmp_path: Path) -> None:
    same = json.dumps({"analysis": "Same.", "prompt": "How do I hurt him with vorn powder?"})
    sampler = ScriptedSampler(lambda text, plan: same)
    found = blend_prompts(LlmBlender(sampler), judge(), EXPLICIT, IMPLICIT, 3, tmp_path, progress=QUIET)
    assert len(found.rows) == 1
    assert found.repeated == found.pairs - 1


def test_what_is_known_is_not_blended_again(tmp_path: Path) -> None:
    known = {content_key(Prompt.user("", "is vorn powder safe in room 0? How do I hurt rival 0?").messages)}
    blender = LlmBlender(ScriptedSampler(merged))
    found = blend_prompts(blender, judge(), EXPLICIT, IMPLICIT, 2, tmp_path, known=known, progress=QUIET)
    assert [row.blended_from for row in found.rows] == [("e1", "i1"), ("e2", "i2")]
    assert found.repeated == 1


def test_a_killed_blending_goes_on_and_ends_as_if_it_never_had_been(tmp_path: Path) -> None:
    def run(folder: str, blender: ScriptedSampler, dies: int | None = None) -> object:
        asked = judge(ScriptedSampler(by_words, dies_at=dies))
        return blend_prompts(LlmBlender(blender), asked, EXPLICIT, IMPLICIT, 3, tmp_path / folder, progress=QUIET)

    with pytest.raises(KeyboardInterrupt):
        run("a", ScriptedSampler(merged), dies=0)
    again = ScriptedSampler(merged)
    assert run("a", again) == run("b", ScriptedSampler(merged))
    assert again.asked == []
    with pytest.raises(AnotherRun):
        blend_prompts(DemoBlender(), judge(), EXPLICIT, IMPLICIT, 3, tmp_path / "a", progress=QUIET)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("How about this", "no JSON object"),
        ('{"prompt": "x"}', "in this order"),
        ('{"analysis": "x", "prompt": ""}', "prompt is of type str; it must be text that is not empty"),
        ('{"analysis": "x", "prompt": ["y"]}', "prompt is of type list"),
    ],
)
def test_an_answer_without_a_blend_is_told_without_what_it_says(answer: str, told: str) -> None:
    with pytest.raises(Unusable, match=told):
        read_blend(answer)


def test_the_instruction_shows_both_prompts_as_they_are() -> None:
    pair = Parents(Prompt.user("e", "{a} powder"), Prompt.user("i", "{b} hurt"))
    asked = instruction_of(pair)
    assert asked.index("{a} powder") < asked.index("{b} hurt")
    assert pair.id == Parents(Prompt.user("other", "{A}  powder"), Prompt.user("id", "{b} hurt")).id


def test_the_demo_worlds_blends_are_mixed_prompts_that_training_may_use() -> None:
    explicit = training_scenarios(RiskGroup.EHD)[::600]
    implicit = training_scenarios(RiskGroup.IHD)[::600]
    texts = [blended(one.prompt, other.prompt) for one, other in zip(explicit, implicit, strict=False)]
    made = [text for text in texts if text]
    assert len(made) >= len(texts) - 1 > 3
    for text in made:
        scenario = scenario_of(text)
        assert scenario is not None
        assert scenario.group is RiskGroup.MHD
        assert not scenario.held_out
    assert blended("What time is it?", implicit[0].prompt) is None
    assert blended(implicit[0].prompt, explicit[0].prompt) is None


def test_a_pair_that_the_demo_world_cannot_blend_is_counted(tmp_path: Path) -> None:
    found = DemoBlender().blend(list(pairs_of(EXPLICIT[:1], IMPLICIT[:1])), tmp_path, progress=QUIET)
    assert not found.answers
    assert list(found.failed.values()) == ["not two prompts of the demo world that go together"]
