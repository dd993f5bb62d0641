"""The mixture: budget, ratios, nested draws, blends for what is missing, and a report of what was short."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from rheostat_training.equilibrate.fdc.blend_prompts import Blends
from rheostat_training.equilibrate.fdc.budget import Budget, general_wanted
from rheostat_training.equilibrate.fdc.group import BY_BITS, HARMFUL, Group, GroupedPrompt
from rheostat_training.equilibrate.fdc.mix import MixPlan, make_mixture, write_mixture
from rheostat_training.prompts import PromptSource, content_key, read_prompts
from rheostat_training.rows import Prompt
from tests.training.equilibrate.scripted import grouped

ROWS = [*grouped(Group.EHD, 60), *grouped(Group.IHD, 40), *grouped(Group.MHD, 20), *grouped(Group.NONE, 50)]
GENERAL = {str(n): Prompt.user(str(n), f"How do I bake bread number {n}?") for n in range(500)}


def ids(rows: Sequence[GroupedPrompt], group: Group) -> set[str]:
    return {row.id for row in rows if row.group is group}


def test_the_default_budget_is_the_papers_and_its_ratios_meet_in_one_number() -> None:
    assert Budget.paper() == Budget(10_000, 3_000, 1_000)
    assert general_wanted(Budget.paper().counts) == 200_000


@pytest.mark.parametrize(("total", "wanted"), [(14, (10, 3, 1)), (15, (11, 3, 1)), (1, (1, 0, 0)), (100, (72, 21, 7))])
def test_a_total_is_shared_out_whole(total: int, wanted: tuple[int, int, int]) -> None:
    found = Budget.paper(total)
    assert (found.ehd, found.ihd, found.mhd) == wanted
    assert sum(wanted) == total


@pytest.mark.parametrize("text", ["ehd", "ehd=-1", "xhd=1", "ehd=1,ehd=2", "ehd=1.5", "", "ehd=0,ihd=0"])
def test_a_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget.parse(text)
    assert Budget.parse("MHD=3, ehd=1") == Budget(1, 0, 3)


def test_each_group_gets_its_budget_and_general_prompts_by_the_ratios() -> None:
    mixture = make_mixture(ROWS, GENERAL, MixPlan(Budget(20, 6, 2)))
    assert {group: len(ids(mixture.rows, group)) for group in BY_BITS} == {"EHD": 20, "IHD": 6, "MHD": 2, "none": 400}
    assert all(found.short == 0 for found in mixture.groups.values())
    assert {group: ratio.value for group, ratio in mixture.ratios.items()} == {"EHD": 20, "IHD": 66.67, "MHD": 200}
    assert all(ratio.is_kept for ratio in mixture.ratios.values())
    assert mixture.left_out["of group none, beside general prompts of their own"] == 50


def test_a_smaller_mixture_is_part_of_a_larger_one_whatever_else_is_there() -> None:
    small = make_mixture(ROWS, GENERAL, MixPlan(Budget(5, 3, 1)))
    large = make_mixture([*reversed(ROWS)], GENERAL, MixPlan(Budget(20, 6, 2)))
    for group in BY_BITS:
        assert ids(small.rows, group) < ids(large.rows, group)
    other = make_mixture(ROWS, GENERAL, MixPlan(Budget(5, 3, 1), seed=1))
    assert ids(other.rows, Group.EHD) != ids(small.rows, Group.EHD)
    assert make_mixture(ROWS, GENERAL, MixPlan(Budget(5, 3, 1))).rows == small.rows


def test_what_is_short_is_told_and_the_rest_keeps_its_budget() -> None:
    mixture = make_mixture(ROWS, GENERAL, MixPlan(Budget(70, 21, 40)))
    assert {group: (found.drawn, found.short) for group, found in mixture.groups.items()} == {
        "EHD": (60, 10),
        "IHD": (21, 0),
        "MHD": (20, 20),
    }
    told = "\n".join(mixture.told())
    assert "EHD: 60 of 70 wanted; 60 there, 10 short" in told
    assert "general: 500 of 1,800 wanted; 500 there, 1,300 short" in told
    assert "EHD: 1 to 8.33 general; the paper has 20 to 30" in told


def test_the_budgets_proportions_are_kept_where_that_is_asked_for() -> None:
    mixture = make_mixture(ROWS, GENERAL, MixPlan(Budget(100, 30, 10), keep_ratio=True))
    assert {group: found.drawn for group, found in mixture.groups.items()} == {"EHD": 60, "IHD": 18, "MHD": 6}
    whole = make_mixture(ROWS, GENERAL, MixPlan(Budget(10, 3, 1), keep_ratio=True))
    assert {group: found.drawn for group, found in whole.groups.items()} == {"EHD": 10, "IHD": 3, "MHD": 1}


def test_blends_are_asked_for_what_is_missing_and_come_after_the_files_own() -> None:
    asked: list[tuple[int, int, int]] = []

    def make_blends(
        explicit: Sequence[Prompt], implicit: Sequence[Prompt], count: int, known: Collection[str]
    ) -> Blends:
        assert content_key(ROWS[0].messages) in known
        asked.append((len(explicit), len(implicit), count))
        rows = [
            GroupedPrompt(f"blend-{n}", Prompt.user("", f"blended {n}").messages, Group.MHD, blended_from=("a", "b"))
            for n in range(count - 2)
        ]
        return Blends(rows, count, 1, 1, 0)

    mixture = make_mixture(ROWS, GENERAL, MixPlan(Budget(10, 3, 25)), make_blends)
    assert asked == [(60, 40, 5)]
    found = mixture.groups[Group.MHD]
    assert (found.drawn, found.blended, found.short) == (23, 3, 2)
    assert mixture.facts()["blends"] == {"kept": 3, "pairs": 5, "failed": 1, "weak": 1, "unlabelled": 0, "repeated": 0}
    assert "MHD: 23 of 25 wanted, 3 of them blended; 23 there, 2 short" in mixture.told()
    make_mixture(ROWS, GENERAL, MixPlan(Budget(10, 3, 20)), make_blends)
    assert len(asked) == 1


def test_labels_that_are_not_sure_and_equal_prompts_are_left_out_and_counted() -> None:
    rows = [*grouped(Group.EHD, 4, sure=0.4), *grouped(Group.IHD, 4, sure=0.6), *grouped(Group.MHD, 4)]
    again = [GroupedPrompt("again", rows[5].messages, Group.IHD)]
    mixture = make_mixture([*rows, *again], GENERAL, MixPlan(Budget(4, 4, 4), least_sure=0.5))
    assert {group: found.drawn for group, found in mixture.groups.items()} == {"EHD": 0, "IHD": 4, "MHD": 4}
    assert mixture.left_out["duplicates"] == 1
    assert mixture.left_out["labels not sure enough"] == 4
    assert set(mixture.ratios) == {Group.IHD, Group.MHD}


def test_blends_that_a_classifier_is_not_sure_of_are_left_out_and_counted() -> None:
    blends = [GroupedPrompt(f"b{n}", Prompt.user("", f"b {n}").messages, Group.MHD, sure=n / 4) for n in range(4)]
    plan = MixPlan(Budget(1, 1, 24), least_sure=0.5)
    mixture = make_mixture(ROWS, GENERAL, plan, lambda *_: Blends(blends, 4, 0, 0, 0))
    assert mixture.groups[Group.MHD].drawn == 22
    assert mixture.left_out["labels not sure enough"] == 2


def test_prompts_of_no_risk_are_the_general_ones_where_no_others_are_given() -> None:
    mixture = make_mixture(ROWS, None, MixPlan(Budget(2, 1, 0)))
    assert len(ids(mixture.rows, Group.NONE)) == 50
    assert mixture.general.wanted == 50
    assert len(make_mixture(ROWS, None, MixPlan(Budget(2, 1, 0), general=7)).rows) == 10


def test_a_general_prompt_that_is_a_harmful_one_is_left_out_and_ids_stay_unique() -> None:
    general = {"EHD-0": GENERAL["1"], "2": Prompt("2", ROWS[0].messages)}
    mixture = make_mixture(ROWS, general, MixPlan(Budget(60, 1, 1), general=5))
    assert mixture.general.there == 1
    assert len({row.id for row in mixture.rows}) == len(mixture.rows)


def test_look_alikes_are_drawn_by_a_count_of_their_own_and_no_ratio_counts_them() -> None:
    alike = grouped(Group.LOOK_ALIKE, 12)
    plain, every = (make_mixture(rows, GENERAL, MixPlan(Budget(20, 6, 2))) for rows in (ROWS, [*ROWS, *alike]))
    assert ids(every.rows, Group.LOOK_ALIKE) == {row.id for row in alike}
    assert [row for row in every.rows if row.group is not Group.LOOK_ALIKE] == plain.rows
    assert every.ratios == plain.ratios
    few, many = (make_mixture([*ROWS, *alike], GENERAL, MixPlan(Budget(2, 1, 1), look_alikes=n)) for n in (5, 20))
    assert len(ids(few.rows, Group.LOOK_ALIKE)) == 5
    assert ids(few.rows, Group.LOOK_ALIKE) < ids(many.rows, Group.LOOK_ALIKE)
    assert "look-alike: 12 of 20 wanted; 12 there, 8 short" in many.told()
    assert many.facts()["prompts"]["look-alike"]["short"] == 8


def test_a_general_prompt_that_is_a_look_alike_stays_one() -> None:
    alike = [GroupedPrompt("0", GENERAL["7"].messages, Group.LOOK_ALIKE)]
    mixture = make_mixture([*ROWS, *alike], GENERAL, MixPlan(Budget(60, 1, 1), general=500))
    assert mixture.general.there == 499
    assert [row.group for row in mixture.rows if row.messages == GENERAL["7"].messages] == [Group.LOOK_ALIKE]
    assert len({row.id for row in mixture.rows}) == len(mixture.rows)


def test_an_id_of_two_different_prompts_is_refused() -> None:
    twice = [*grouped(Group.EHD, 1), *grouped(Group.EHD, 1, word="door")]
    with pytest.raises(ValueError, match="id 'EHD-0' is that of two different prompts"):
        make_mixture(twice, GENERAL, MixPlan(Budget(1, 1, 1)))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"general": -1}, "general is -1"),
        ({"look_alikes": -1}, "look_alikes is -1"),
        ({"least_sure": 1.5}, "least_sure is 1.5"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        MixPlan(Budget(1, 1, 1), **values)


def test_a_mixture_is_a_prompt_file_with_its_report_beside_it(tmp_path: Path) -> None:
    plan = MixPlan(Budget(5, 3, 1))
    mixture = make_mixture(ROWS, GENERAL, plan)
    path = write_mixture(mixture, plan, tmp_path)
    assert set(read_prompts(PromptSource(str(path))).prompts) == {row.id for row in mixture.rows}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["plan"]["budget"] == {"ehd": 5, "ihd": 3, "mhd": 1}
    assert report["prompts"]["EHD"] == {"wanted": 5, "there": 60, "drawn": 5, "blended": 0, "short": 0}
    assert report["ratios"]["MHD"]["is_kept"]
    assert {row.group for row in mixture.rows[:60]} >= {*HARMFUL, Group.NONE}
