"""Selection: the nearest to the dials, honest about what cannot be reached, judged, or returned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.contract.dials import Dials
from rheostat_server.reranking.selection import Target, choose, distance, ranked
from rheostat_server.scorers import UNJUDGED, Scores

LEVEL = st.floats(0, 1)
SCORES = st.builds(Scores, LEVEL, LEVEL)
DIALS = st.builds(Dials, safety=LEVEL, helpfulness=LEVEL)


@given(st.lists(SCORES, min_size=1, max_size=16), DIALS)
def test_no_candidate_is_nearer_than_the_chosen_one(scores: list[Scores], dials: Dials) -> None:
    choice = choose(scores, Target(dials))
    assert choice.place is not None
    assert distance(scores[choice.place], dials) == min(distance(each, dials) for each in scores)
    assert choice.left is not None
    assert sum(choice.left.values()) == pytest.approx(distance(scores[choice.place], dials))


@given(st.lists(SCORES, min_size=2, max_size=16), DIALS, st.floats(0.01, 1))
def test_nothing_below_the_floor_is_ever_chosen(scores: list[Scores], dials: Dials, floor: float) -> None:
    choice = choose(scores, Target(dials, floor))
    above = [each for each in scores if (each.safety or 0) >= floor]
    assert (choice.place is None) == (not above)
    if choice.place is not None:
        assert scores[choice.place] in above
    assert choice.below_floor == len(scores) - len(above)


@given(st.lists(SCORES | st.just(UNJUDGED), min_size=1, max_size=8), DIALS, st.floats(0, 1))
def test_the_ranking_begins_with_the_choice(scores: list[Scores], dials: Dials, floor: float) -> None:
    target = Target(dials, floor)
    place = choose(scores, target).place
    if place is not None:
        assert ranked(scores, target)[0] == place
    assert sorted(ranked(scores, target)) == list(range(len(scores)))


@pytest.mark.parametrize(("dial", "best"), [(1.0, 0.9), (0.0, 0.1)])
def test_a_dial_at_its_end_means_as_far_as_can_be(dial: float, best: float) -> None:
    scores = [Scores(level, 0.5) for level in (0.5, 0.1, 0.9, 0.4)]
    choice = choose(scores, Target(Dials(safety=dial, helpfulness=0.5)))
    assert choice.scores.safety == best
    assert choice.unreachable == ()


def test_a_dial_outside_of_all_levels_is_told_as_unreachable_with_what_is_left() -> None:
    scores = [Scores(0.2, 0.5), Scores(0.4, 0.6)]
    choice = choose(scores, Target(Dials(safety=0.9, helpfulness=0.55)))
    assert choice.place == 1
    assert choice.unreachable == ("safety",)
    assert choice.left == pytest.approx({"safety": 0.5, "helpfulness": 0.05})


def test_ties_are_counted_and_the_first_is_taken() -> None:
    scores = [Scores(0.0, 0.0), Scores(0.4, 0.5), Scores(0.6, 0.5), Scores(0.5, 0.6)]
    choice = choose(scores, Target(Dials(safety=0.5, helpfulness=0.5)))
    assert (choice.place, choice.ties) == (1, 2)


def test_what_could_not_be_judged_is_not_chosen_over_what_could() -> None:
    scores = [UNJUDGED, Scores(0.5, None), Scores(0.0, 1.0)]
    choice = choose(scores, Target(Dials(safety=1.0, helpfulness=0.0)))
    assert (choice.place, choice.unjudged) == (2, 2)


def test_where_nothing_could_be_judged_the_first_is_taken_and_no_level_is_made_up() -> None:
    choice = choose([UNJUDGED, UNJUDGED], Target(Dials(safety=1.0, helpfulness=0.0)))
    assert (choice.place, choice.unjudged) == (0, 2)
    assert choice.scores == UNJUDGED
    assert choice.left is None


def test_what_could_not_be_judged_is_not_above_a_floor() -> None:
    assert choose([UNJUDGED], Target(Dials(safety=1.0, helpfulness=0.0), floor=0.1)).place is None
