"""The panel: several scorers as one, weighted, shrunk, and without those that fail."""

from collections.abc import Mapping

import pytest

from rheostat_server.contract.dials import DialName
from rheostat_server.errors import CannotStart, ScorerUnavailable
from rheostat_server.scorers import ScorerCard, Scores
from rheostat_server.scorers.panel import Judgement, Member, Panel, Shrinkage
from tests.reranking.rigs import TalkativeScorer

BOTH: tuple[DialName, ...] = ("safety", "helpfulness")


def scorer(name: str, levels: Mapping[str, Scores], *, dials: tuple[DialName, ...] = BOTH) -> TalkativeScorer:
    return TalkativeScorer(levels.__getitem__, card=ScorerCard(name, "test", "sha256:0", dials))


async def test_a_level_is_the_weighted_mean_of_those_that_judge_it() -> None:
    one = scorer("one", {"a": Scores(0.25, 0.5)})
    two = scorer("two", {"a": Scores(0.75, None)})
    found = await Panel([Member(one), Member(two, weight=3)]).judge([], ["a"])
    assert found == Judgement([Scores(0.625, 0.5)], frozenset({"two"}))


async def test_equal_answers_are_judged_once_by_each() -> None:
    one = scorer("one", {"a": Scores(0.2, 0.4), "b": Scores(0.3, 0.5)})
    found = await Panel([Member(one)]).judge([], ["a", "b", "a"])
    assert [each.safety for each in found.scores] == [0.2, 0.3, 0.2]
    assert not found.left_out
    assert one.asked == [["a", "b"]]


async def test_one_that_fails_is_left_out_where_another_judges_the_dial() -> None:
    one = scorer("one", {"a": Scores(0.2, 0.4)})
    broken = TalkativeScorer(fails=True, card=ScorerCard("broken", "test", "sha256:0", ("safety",)))
    found = await Panel([Member(one), Member(broken)]).judge([], ["a"])
    assert found == Judgement([Scores(0.2, 0.4)], frozenset({"broken"}))


async def test_one_that_cannot_judge_every_answer_is_left_out_where_another_can() -> None:
    one = scorer("one", {"a": Scores(0.2, 0.4), "b": Scores(0.6, 0.5)})
    two = scorer("two", {"a": Scores(0.4, 0.8), "b": Scores(None, 0.9)})
    found = await Panel([Member(one), Member(two)]).judge([], ["a", "b"])
    assert [each.safety for each in found.scores] == [0.2, 0.6]
    assert [each.helpfulness for each in found.scores] == pytest.approx([0.6, 0.7])
    assert found.left_out == {"two"}


async def test_a_dial_that_nobody_can_judge_now_is_a_failure() -> None:
    one = scorer("one", {"a": Scores(None, 0.4)}, dials=("helpfulness",))
    broken = TalkativeScorer(fails=True, card=ScorerCard("broken", "test", "sha256:0", ("safety",)))
    with pytest.raises(ScorerUnavailable):
        await Panel([Member(one), Member(broken)]).judge([], ["a"])


async def test_a_level_is_shrunk_towards_its_mean_as_far_as_it_is_not_believed() -> None:
    one = scorer("one", {"a": Scores(0.75, 0.75)})
    panel = Panel([Member(one)], {"safety": Shrinkage(reliability=0.5, mean=0.25)})
    assert await panel.judge([], ["a"]) == Judgement([Scores(0.5, 0.75)])


def test_each_dial_needs_a_scorer_and_each_scorer_a_name_of_its_own() -> None:
    with pytest.raises(CannotStart, match="no scorer judges helpfulness"):
        Panel([Member(scorer("one", {}, dials=("safety",)))])
    with pytest.raises(CannotStart, match="two scorers are named 'one'"):
        Panel([Member(scorer("one", {})), Member(scorer("one", {}))])
    with pytest.raises(ValueError, match="reliability is 2"):
        Shrinkage(reliability=2)
