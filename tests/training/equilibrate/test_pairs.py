"""Which answers are chosen over which."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.contract.dials import Dials
from rheostat_training.equilibrate.pairs import BEST, BOTH_SAFE, Candidate, PairPlan, bfpo_aim, make_pairs
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Pair, Prompt
from rheostat_training.training_set import build_pair_set, steps

REFUSAL = Candidate("no", safety=1.0, helpfulness=0.0, refuses=True)
ENGAGED = Candidate("with care", safety=0.75, helpfulness=0.75, refuses=False)
UNSAFE = Candidate("sure", safety=0.0, helpfulness=1.0, refuses=False)

LEVELS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
SAID = st.lists(
    st.builds(Candidate, st.text("abc", min_size=1, max_size=4), LEVELS, LEVELS, st.booleans()), max_size=12
)


def made(*said: Candidate, **plan: object) -> list[tuple[str, str]]:
    return of_harmless((), {"p": said}, **plan)


def of_harmless(
    harmless: Collection[str], said: Mapping[str, Sequence[Candidate]], **plan: object
) -> list[tuple[str, str]]:
    found = make_pairs(said, PairPlan(**plan), harmless=harmless)  # type: ignore[arg-type]
    return [(pair.chosen, pair.rejected) for pair in found.pairs]


def test_an_engaged_safe_answer_is_chosen_over_an_unsafe_one_and_over_a_bare_refusal() -> None:
    assert made(REFUSAL, UNSAFE, ENGAGED) == [("with care", "sure"), ("with care", "no")]


def test_help_is_chosen_over_the_refusal_of_a_benign_prompt() -> None:
    assert made(REFUSAL, ENGAGED) == [("with care", "no")]


def test_where_no_safe_answer_engages_a_refusal_is_chosen_over_an_unsafe_one() -> None:
    assert made(REFUSAL, UNSAFE) == [("no", "sure")]


def test_plain_safety_tuning_prefers_the_refusal_to_all_others() -> None:
    assert made(UNSAFE, ENGAGED, REFUSAL, order="safety", per_prompt=1) == [("no", "sure")]


def test_the_more_helpful_answer_is_chosen_whatever_its_safety() -> None:
    assert made(REFUSAL, UNSAFE, order="helpfulness") == [("sure", "no")]


def test_answers_that_are_alike_make_no_pair_and_their_prompt_is_told() -> None:
    found = make_pairs({"p": [REFUSAL], "q": [UNSAFE, UNSAFE]}, PairPlan(order="safety", borrow=False))
    assert found.pairs == ()
    assert found.without == ("p", "q")


@pytest.mark.parametrize(
    ("safe", "wanted"), [((True, True), 0.5), ((True, False), 1.0), ((False, True), -1.0), ((False, False), -0.5)]
)
def test_the_aims_of_bfpo_are_the_published_ones(safe: tuple[bool, bool], wanted: float) -> None:
    assert bfpo_aim(chosen_safe=safe[0], rejected_safe=safe[1]) == wanted


def test_bfpos_dial_moves_every_aim_alike() -> None:
    two = make_pairs({"p": [REFUSAL, UNSAFE]}, PairPlan(order="helpfulness", aim="bfpo", alpha=1.0)).pairs
    assert [pair.aim for pair in two] == [-1.0 - 0.5]


def test_bfpos_dial_leaves_the_pairs_under_other_dials_as_they_are() -> None:
    said = {f"p{number}": [REFUSAL, UNSAFE, ENGAGED] for number in range(20)}
    plan = PairPlan(order="helpfulness", aim="bfpo", alpha=1.5, control_share=0.5)
    under = [pair for pair in make_pairs(said, plan).pairs if pair.dials != BEST]
    assert {pair.aim for pair in under} == {BOTH_SAFE}


def test_midpos_margin_is_how_much_better_the_chosen_answer_is() -> None:
    [safer] = make_pairs({"p": [ENGAGED, UNSAFE]}, PairPlan(order="safety", aim="margin")).pairs
    [abler] = make_pairs({"p": [ENGAGED, UNSAFE]}, PairPlan(order="helpfulness", aim="margin")).pairs
    assert (safer.aim, abler.aim) == (0.75, 0.25)


def test_midpos_margin_over_a_refusal_is_of_the_levels_that_were_judged() -> None:
    hesitant, safer = replace(REFUSAL, safety=0.75), replace(ENGAGED, safety=0.5)
    [pair] = make_pairs({"p": [hesitant, safer]}, PairPlan(order="safety", aim="margin")).pairs
    assert (pair.chosen, pair.aim) == ("no", 0.25)
    [pair] = make_pairs({"p": [hesitant, replace(ENGAGED, safety=0.75)]}, PairPlan(order="safety", aim="margin")).pairs
    assert (pair.chosen, pair.aim) == ("no", 0.0)


NERVOUS = replace(REFUSAL, helpfulness=0.5)
"""A refusal that a scorer found half a help."""


@pytest.mark.parametrize(
    ("order", "said", "wanted"),
    [
        ("equilibrate", [NERVOUS, UNSAFE], []),
        ("equilibrate", [NERVOUS, UNSAFE, ENGAGED], [("with care", "sure"), ("with care", "no")]),
        ("safety", [NERVOUS, UNSAFE], []),
        ("safety", [NERVOUS, ENGAGED], []),
        ("safety", [NERVOUS, UNSAFE, ENGAGED], [("with care", "sure")]),
        ("helpfulness", [NERVOUS, replace(ENGAGED, helpfulness=0.0)], []),
        ("helpfulness", [NERVOUS, ENGAGED], [("with care", "no")]),
    ],
)
def test_no_order_chooses_a_refusal_of_a_harmless_prompt(
    order: str, said: list[Candidate], wanted: list[tuple[str, str]]
) -> None:
    assert of_harmless({"p"}, {"p": said}, order=order) == wanted


def test_plain_safety_tuning_borrows_no_refusal_for_a_harmless_prompt() -> None:
    said = {"benign": [UNSAFE, ENGAGED], "harmful": [REFUSAL]}
    assert of_harmless({"benign"}, said, order="safety") == [("with care", "sure")]


def test_under_other_dials_a_harmless_prompt_may_be_refused() -> None:
    """Control text of no helpfulness asks for it."""
    said = {f"p{number}": [REFUSAL, ENGAGED] for number in range(20)}
    pairs = make_pairs(said, PairPlan(control_share=0.5), harmless=said.keys()).pairs
    assert {pair.dials for pair in pairs if pair.chosen == "no"} == {REFUSAL.dials}


@pytest.mark.parametrize("order", ["equilibrate", "safety"])
def test_no_answer_is_paired_with_itself_where_another_prompts_refusal_says_the_same(order: str) -> None:
    said = {
        "a": [replace(REFUSAL, safety=0.4), replace(REFUSAL, answer="ok", safety=0.6, refuses=False)],
        "b": [REFUSAL, replace(REFUSAL, answer="ok")],
    }
    pairs = make_pairs(said, PairPlan(order=order)).pairs  # type: ignore[arg-type]
    assert all(pair.chosen != pair.rejected for pair in pairs)


def test_a_refusal_is_not_borrowed_by_a_prompt_that_has_it_judged_otherwise() -> None:
    said = {"a": [replace(REFUSAL, safety=0.4), ENGAGED], "b": [REFUSAL]}
    assert of_harmless((), said, order="safety") == [("with care", "no")]
    engaged = {"a": [replace(REFUSAL, refuses=False)], "b": [REFUSAL]}
    assert of_harmless((), engaged) == []


@pytest.mark.parametrize("better", [ENGAGED, REFUSAL])
def test_a_safe_answer_is_chosen_over_an_unsafe_one_only_by_the_gap(better: Candidate) -> None:
    near = replace(UNSAFE, safety=0.25)
    assert made(replace(better, safety=0.5), near, borrow=False) == [(better.answer, "sure")]
    assert made(replace(better, safety=0.5), near, borrow=False, gap=0.3) == []


def test_an_unsafe_answer_is_paired_with_a_safe_one_that_is_far_enough() -> None:
    near, far = replace(ENGAGED, answer="near", safety=0.5, helpfulness=1.0), replace(ENGAGED, safety=1.0)
    assert made(near, far, replace(UNSAFE, safety=0.4)) == [("with care", "sure")]


def test_an_engaged_answer_is_chosen_over_a_refusal_whatever_the_gap() -> None:
    assert made(REFUSAL, ENGAGED, gap=0.9) == [("with care", "no")]


def test_under_control_text_a_share_of_pairs_is_of_other_dials() -> None:
    said = {f"p{number}": [REFUSAL, UNSAFE, ENGAGED] for number in range(60)}
    pairs = make_pairs(said, PairPlan(control_share=0.5)).pairs
    others = [pair for pair in pairs if pair.dials != BEST]
    assert 0.3 < len(others) / len(pairs) < 0.7
    own = {each.answer: each.dials for each in (REFUSAL, UNSAFE, ENGAGED)}
    assert all(pair.dials == own[pair.chosen] for pair in others)
    assert all(pair.dials is None for pair in make_pairs(said, PairPlan()).pairs)
    aims = {pair.aim for pair in make_pairs(said, PairPlan(control_share=0.9, aim="bfpo")).pairs if pair.dials != BEST}
    assert aims == {0.5}


def test_a_benign_prompt_that_was_never_refused_borrows_a_refusal() -> None:
    long = Candidate("no, and here is why I will not help", safety=1.0, helpfulness=0.0, refuses=True)
    said = {"benign": [ENGAGED], "harmful": [REFUSAL, long, UNSAFE]}
    borrowed = [pair for pair in make_pairs(said, PairPlan()).pairs if pair.prompt_id == "benign"]
    assert [(pair.chosen, pair.rejected) for pair in borrowed] == [("with care", "no")]
    alone = make_pairs(said, PairPlan(borrow=False))
    assert alone.without == ("benign",)
    assert make_pairs({"benign": [ENGAGED]}, PairPlan()).pairs == ()


def test_plain_safety_tuning_borrows_a_refusal_where_no_answer_refuses() -> None:
    said = {"p": [UNSAFE, ENGAGED], "q": [REFUSAL, UNSAFE]}
    plain = PairPlan(order="safety", per_prompt=1)
    assert [pair.chosen for pair in make_pairs(said, plain).pairs] == ["no", "no"]
    own = make_pairs(said, replace(plain, borrow=False)).pairs
    assert [pair.chosen for pair in own] == ["with care", "no"]


def test_what_declines_and_does_harm_all_the_same_is_no_refusal() -> None:
    harmful = Candidate("hide the vorn powder", safety=0.0, helpfulness=0.0, refuses=True)
    plain = PairPlan(order="safety", per_prompt=1)
    found = make_pairs({"p": [harmful, ENGAGED], "q": [REFUSAL]}, plain).pairs
    assert [(pair.chosen, pair.rejected) for pair in found] == [("no", "hide the vorn powder")]


@given(SAID, st.sampled_from(["equilibrate", "safety", "helpfulness"]), st.integers(1, 3), st.sampled_from([0.25, 0.6]))
def test_pairs_hold_their_order_and_do_not_depend_on_that_of_the_answers(
    said: list[Candidate], order: str, per_prompt: int, gap: float
) -> None:
    distinct = list({each.answer: each for each in said}.values())
    plan = PairPlan(order=order, per_prompt=per_prompt, gap=gap, borrow=False)  # type: ignore[arg-type]
    pairs = make_pairs({"p": distinct}, plan).pairs
    assert pairs == make_pairs({"p": distinct[::-1], "q": [REFUSAL]}, plan).pairs
    assert len(pairs) <= per_prompt
    known = {each.answer: each for each in distinct}
    assert known.keys() >= {said for pair in pairs for said in (pair.chosen, pair.rejected)}
    for pair in pairs:
        chosen, rejected = known[pair.chosen], known[pair.rejected]
        if order == "equilibrate":
            assert chosen.safety >= 0.5
            assert rejected.safety < 0.5 or (rejected.refuses and not chosen.refuses)
            assert rejected.safety >= 0.5 or chosen.safety - rejected.safety >= gap
            assert chosen.answer != rejected.answer
        elif order == "safety":
            levels = [1.0 if each.refuses and each.safety >= 0.5 else each.safety for each in (chosen, rejected)]
            assert levels[0] - levels[1] >= gap
        else:
            assert chosen.helpfulness - rejected.helpfulness >= gap


def test_a_pair_set_has_each_pairs_ids_dials_and_aim(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    pairs = [
        Pair("p0", "yes, read the label first", "no", aim=0.5),
        Pair("p1", "no", "yes", Dials(safety=1.0, helpfulness=0.0)),
    ]
    first, second = build_pair_set(model, prompts, pairs)
    assert first.row.aim == 0.5
    assert first.row.encoded.prompt_ids == first.plain_ids
    assert second.row.encoded.prompt_ids != second.plain_ids
    assert second.negatives[0].encoded.prompt_ids == second.row.encoded.prompt_ids
    assert first.negatives[0].encoded.answer_ids == second.row.encoded.answer_ids
    step = next(steps([first, second], batch_rows=2, negatives_per_positive=0, max_repeats=1, seed=0, in_pairs=True))
    by_row = dict(zip(step.positives, step.negatives, strict=True))
    assert by_row == {first.row: first.negatives[0], second.row: second.negatives[0]}


def test_a_pair_of_equal_answers_is_refused(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    with pytest.raises(ValueError, match="'p0' has the same answer twice"):
        build_pair_set(model, prompts, [Pair("p0", "no", "no")])
    with pytest.raises(ValueError, match="pairs are empty"):
        build_pair_set(model, prompts, [])
