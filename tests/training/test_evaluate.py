"""The figures against slow loops and against dials whose obedience is known."""

import random
from itertools import product

import numpy as np
import pytest
from scipy.stats import pearsonr

from rheostat_server.contract.dials import Dials
from rheostat_training.evaluate import Evaluation, Trial, evaluate, grid, requests_for, trials
from rheostat_training.rows import Prompt, Sample
from rheostat_training.score import CallableJudge


def obeying(prompts: int = 40, *, noise: float = 0.0, leak: float = 0.0, seed: int = 0) -> list[Trial]:
    """Trials whose levels are those asked for, plus noise, plus a share of the other dial."""
    chance = random.Random(seed)
    return [
        Trial(
            f"p{prompt}",
            dials,
            dials.safety + leak * dials.helpfulness + chance.gauss(0, noise),
            dials.helpfulness + chance.gauss(0, noise),
        )
        for prompt, dials in product(range(prompts), grid())
    ]


def slow_better_than(rows: list[Trial], pairs: list[tuple[float, float]]) -> float:
    won = count = 0.0
    for one, other in product(rows, rows):
        same = one.prompt_id == other.prompt_id and one.requested.helpfulness == other.requested.helpfulness
        if same and (one.requested.safety, other.requested.safety) in pairs:
            assert one.safety is not None
            assert other.safety is not None
            won += 1.0 if other.safety > one.safety else 0.5 if other.safety == one.safety else 0.0
            count += 1
    return won / count


def test_dials_that_are_obeyed_to_the_letter_have_perfect_figures() -> None:
    result = evaluate(obeying(), resamples=20)
    for figures in (result.safety, result.helpfulness):
        assert figures.mP.value == pytest.approx(1)
        assert figures.MP.value == pytest.approx(1)
        assert figures.Err.value == 0
        assert figures.BT.value == figures.BT_all.value == 1
        assert figures.cross_talk.value == pytest.approx(0)
        assert figures.tau.value == 1
    assert result.well_formed.value == 1


def test_dials_that_do_nothing_have_the_figures_of_chance() -> None:
    rows = [Trial(f"p{prompt}", dials, 0.5, 0.5) for prompt, dials in product(range(9), grid())]
    safety = evaluate(rows, resamples=20).safety
    assert (safety.mP.value, safety.MP.value, safety.BT.value, safety.tau.value) == (0, 0, 0.5, 0)


def test_the_attainable_range_of_a_dial_is_that_of_its_mean_levels() -> None:
    rows = [
        Trial(f"p{prompt}", dials, 0.2 + 0.5 * dials.safety + 0.1 * dials.helpfulness, 1.0)
        for prompt, dials in product(range(3), grid())
    ]
    result = evaluate(rows, resamples=2)
    assert result.attainable("safety") == pytest.approx((0.25, 0.75))
    assert result.attainable("helpfulness") == (1.0, 1.0)


def test_figures_are_those_of_slow_loops() -> None:
    rows = obeying(12, noise=0.5, leak=0.4)
    safety = evaluate(rows, resamples=5).safety
    asked = [row.requested.safety for row in rows]
    reached = [row.safety or 0.0 for row in rows]
    helpful = [row.helpfulness or 0.0 for row in rows]
    own = [pearsonr(asked[start : start + 9], reached[start : start + 9]).statistic for start in range(0, len(rows), 9)]
    assert safety.mP.value == pytest.approx(pearsonr(asked, reached).statistic)
    assert safety.MP.value == pytest.approx(np.mean(own))
    assert safety.Err.value == pytest.approx(np.mean(np.abs(np.array(asked) - reached)))
    assert safety.cross_talk.value == pytest.approx(pearsonr(asked, helpful).statistic)
    assert safety.BT.value == pytest.approx(slow_better_than(rows, [(0.0, 1.0)]))
    assert safety.BT_all.value == pytest.approx(slow_better_than(rows, [(0.0, 0.5), (0.5, 1.0), (0.0, 1.0)]))


def test_a_dial_that_moves_the_other_has_cross_talk() -> None:
    result = evaluate(obeying(leak=0.8), resamples=20)
    assert result.helpfulness.cross_talk.value > 0.5
    assert result.safety.cross_talk.value == pytest.approx(0)


def test_intervals_hold_the_value_and_shrink_with_prompts() -> None:
    few, many = (evaluate(obeying(prompts, noise=0.5)).safety.MP for prompts in (20, 200))
    assert few.low < few.value < few.high
    assert many.high - many.low < few.high - few.low


def test_intervals_are_over_prompts_so_that_more_answers_to_the_same_prompts_do_not_narrow_them() -> None:
    rows = obeying(20, noise=0.5, leak=0.2)
    once, again = evaluate(rows, resamples=50).safety, evaluate(rows * 3, resamples=50).safety
    for name in ("mP", "MP", "Err", "BT", "cross_talk", "tau"):
        one, other = getattr(once, name), getattr(again, name)
        assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_tau_is_that_of_the_mean_scores_by_level() -> None:
    reached = {0.0: 0.3, 0.5: 0.2, 1.0: 0.9}
    rows = [Trial(f"p{prompt}", dials, reached[dials.safety], 0.5) for prompt, dials in product(range(4), grid())]
    assert evaluate(rows, resamples=5).safety.tau.value == pytest.approx(1 / 3)


def test_a_level_without_a_judged_answer_has_no_mean_of_zero() -> None:
    rows = [
        Trial("p", Dials(safety=0.0, helpfulness=0.5), 0.2, 0.5),
        Trial("p", Dials(safety=0.5, helpfulness=0.5), 0.4, 0.5),
        Trial("q", Dials(safety=1.0, helpfulness=0.5), 0.6, 0.5),
    ]
    tau = evaluate(rows, resamples=50).safety.tau
    assert (tau.value, tau.high) == (1, 1)
    assert tau.low >= 0


def test_the_same_seed_gives_the_same_intervals() -> None:
    assert evaluate(obeying(noise=0.3), resamples=50) == evaluate(obeying(noise=0.3), resamples=50)


def test_an_answer_that_could_not_be_judged_is_counted_and_never_scored() -> None:
    rows = obeying(10)
    broken = [Trial("p0", Dials(safety=1.0, helpfulness=1.0), None, None) for _ in range(10)]
    result = evaluate(rows + broken, resamples=10)
    assert result.unjudged == 10
    assert result.well_formed.value == pytest.approx(0.9)
    assert result.safety.Err.value == 0


def test_nothing_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 1 trials"):
        evaluate([Trial("p", Dials(safety=0, helpfulness=0), None, None)])


def test_samples_become_trials_through_the_judge() -> None:
    prompts = {"p": Prompt.user("p", "question")}
    [request, *_] = requests_for(prompts.values(), grid())
    answers = [Sample("p", 0, "good", 3, True, request.dials), Sample("p", 1, "garbled", 3, False, request.dials)]
    judge = CallableJudge(lambda prompt, answer: (1.0, 0.5) if (prompt, answer) == ("question", "good") else None)
    assert request.dials is not None
    assert trials(prompts, answers, judge) == [
        Trial("p", request.dials, 1.0, 0.5),
        Trial("p", request.dials, None, None),
    ]


def test_a_sample_of_an_unknown_prompt_is_refused_by_its_id() -> None:
    with pytest.raises(ValueError, match="'elsewhere'"):
        trials({}, [Sample("elsewhere", 0, "a", 1, True, grid()[0])], CallableJudge(lambda *_: None))


def test_a_sample_without_dials_is_no_trial() -> None:
    with pytest.raises(ValueError, match="no dials"):
        trials({"p": Prompt.user("p", "q")}, [Sample("p", 0, "a", 1, True)], CallableJudge(lambda *_: None))


def test_the_table_has_a_row_a_dial() -> None:
    result: Evaluation = evaluate(obeying(5), resamples=5)
    table = result.markdown().splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert set(result.metrics("safety")) >= {"mP", "MP_low", "well_formed"}
