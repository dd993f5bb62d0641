"""The logic of benchmarks.rerank_gap: noise that stays put, means that cancel it, shrinkage, choice and gap."""

from random import Random

import numpy as np
import pytest
from benchmarks.gap_scorers import Known, Noisy, Offer, Selecting, halves, shrinkage_of, told
from benchmarks.rerank_gap import HELD_OUT, ITSELF, TRUTH, chosen, gap

from rheostat_server.contract.dials import Dials
from rheostat_server.scorers import UNJUDGED, Dialogue, Scores
from rheostat_training.evaluate import grid
from rheostat_training.rows import Prompt

OFFERS = [
    Offer(Prompt.user(f"p{at}", f"question {at}"), tuple(f"answer {at} {each}" for each in range(8)))
    for at in range(30)
]


@pytest.fixture
def truth() -> Known:
    random = Random(0)
    return {
        (offer.prompt.text, answer): Scores(random.choice((0.0, 0.5, 1.0)), random.choice((0.0, 0.5, 1.0)))
        for offer in OFFERS
        for answer in offer.answers
    }


def spread(scores: list[list[Scores]], truth: Known) -> float:
    found = [each.safety for row in scores for each in row]
    known = [truth[offer.prompt.text, answer].safety for offer in OFFERS for answer in offer.answers]
    return float(np.std(np.array(found, float) - np.array(known, float)))


async def test_noise_is_the_same_at_every_call_and_another_for_another_seed_or_answer(truth: Known) -> None:
    dialogues = OFFERS[0].dialogues
    one, two = Noisy(truth, 0.2, seed=1), Noisy(truth, 0.2, seed=2)
    first = await one.score(dialogues)
    assert await one.score(list(reversed(dialogues))) == list(reversed(first))
    assert await two.score(dialogues) != first
    known = [truth[each.question, each.answer].safety for each in dialogues]
    errors = {round(score.safety - level, 6) for score, level in zip(first, known, strict=True) if level == 0.5}  # type: ignore[operator]
    assert len(errors) == known.count(0.5)
    assert all(0 <= level <= 1 for score in first for level in (score.safety, score.helpfulness) if level is not None)


async def test_what_could_not_be_judged_stays_so_with_noise() -> None:
    assert await Noisy({("", "answer"): UNJUDGED}, 0.2, seed=1).score([Dialogue((), "answer")]) == [UNJUDGED]


async def test_a_mean_of_noisy_scorers_errs_less_than_one_of_them(truth: Known) -> None:
    noisy = [Noisy(truth, 0.3, seed) for seed in range(4)]
    alone, together = [spread(await told(Selecting("", some), OFFERS, truth), truth) for some in (noisy[:1], noisy)]
    assert together < 0.8 * alone


async def test_shrinkage_comes_from_the_other_half_of_the_prompts(truth: Known) -> None:
    noisy = [Noisy(truth, 0.3, seed=0)]
    plain = await told(Selecting("", noisy), OFFERS, truth)
    one, two = halves(len(OFFERS))
    assert sorted(one + two) == list(range(len(OFFERS)))
    others = [truth[OFFERS[at].prompt.text, answer] for at in two for answer in OFFERS[at].answers]
    wanted = shrinkage_of([each for at in two for each in plain[at]], others)["safety"]
    shrunk = await told(Selecting("", noisy, shrunk=True), OFFERS, truth)
    for at in one:
        levels = [each.safety for each in plain[at]]
        assert [each.safety for each in shrunk[at]] == pytest.approx(
            [wanted.of(level) for level in levels if level is not None]
        )


def test_reliability_is_the_squared_correlation_with_another_judge_and_what_nobody_judged_is_left_out() -> None:
    scores = [Scores(0.0, 0.2), Scores(1.0, 0.2), Scores(0.5, 0.2), UNJUDGED]
    other = [Scores(0.2, 0.0), Scores(0.6, 1.0), Scores(0.4, 0.5), Scores(1.0, 1.0)]
    found = shrinkage_of(scores, other)
    assert found["safety"].reliability == pytest.approx(1)
    assert found["safety"].mean == pytest.approx(0.5)
    assert found["helpfulness"].reliability == 0
    with pytest.raises(ValueError, match="1 answers were judged for safety by both; at least 2"):
        shrinkage_of(scores[:1], other[:1])


async def test_where_all_answers_are_alike_a_noisy_scorer_sees_itself_choose_well_and_a_true_one_does_not() -> None:
    alike = {(offer.prompt.text, answer): Scores(0.5, 0.5) for offer in OFFERS for answer in offer.answers}
    judges = {HELD_OUT: alike, TRUTH: alike}
    exact = [[Scores(0.5, 0.5) for _ in offer.answers] for offer in OFFERS]
    assert gap(chosen(OFFERS, exact, 8, judges), "safety", resamples=50).value == 0
    noisy = await told(Selecting("", [Noisy(alike, 0.3, seed=0)]), OFFERS, alike)
    assert gap(chosen(OFFERS, noisy, 8, judges), "safety", resamples=50).low > 0.05


def test_only_the_first_candidates_are_chosen_from_and_malformed_ones_count_for_nobody(truth: Known) -> None:
    offer = OFFERS[0]
    scores = [[Scores(0.5, 0.5), Scores(0.0, 0.0), Scores(1.0, 1.0)]]
    broken = {**truth, (offer.prompt.text, offer.answers[1]): UNJUDGED}
    trials = chosen([offer], scores, 2, {HELD_OUT: truth, TRUTH: broken})
    by_dials = {trial.requested: trial for trial in trials[ITSELF]}
    assert len(by_dials) == len(grid())
    assert by_dials[Dials(safety=1, helpfulness=1)].safety == 0.5
    assert all(
        not {each.requested: each for each in rows}[Dials(safety=0, helpfulness=0)].judged for rows in trials.values()
    )
