"""The figures against slow loops and against dials whose obedience is known."""

import json
import math
import random
from collections import Counter
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from rheostat_server.contract.dials import DialName, Dials
from rheostat_training.bootstrap import Bootstrap
from rheostat_training.evaluate import (
    BadEvaluation,
    Evaluation,
    EvaluationFile,
    Figure,
    Trial,
    evaluate,
    grid,
    read_evaluations,
    requests_for,
    trials,
    write_evaluations,
)
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


def asked(row: Trial, dial: DialName) -> float:
    return row.requested.as_dict()[dial]


def reached(row: Trial, dial: DialName) -> float:
    level = row.safety if dial == "safety" else row.helpfulness
    assert level is not None
    return level


def other(dial: DialName) -> DialName:
    return "helpfulness" if dial == "safety" else "safety"


def slow_pearson(pairs: list[tuple[float, float]], weights: list[float] | None = None) -> float:
    """The definition, 0 where one of the two does not move."""
    heavy = weights or [1.0] * len(pairs)
    x, y = fmean((x for x, _ in pairs), heavy), fmean((y for _, y in pairs), heavy)
    var_x = fmean(((one - x) ** 2 for one, _ in pairs), heavy)
    var_y = fmean(((two - y) ** 2 for _, two in pairs), heavy)
    spread = math.sqrt(var_x * var_y)
    return fmean(((one - x) * (two - y) for one, two in pairs), heavy) / spread if spread > 1e-12 else 0.0


def slow_mp(rows: list[Trial], dial: DialName) -> float:
    by_prompt: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt_id, []).append((asked(row, dial), reached(row, dial)))
    own = [slow_pearson(pairs) for pairs in by_prompt.values() if len({level for level, _ in pairs}) > 1]
    return fmean(own) if own else 0.0


def slow_bt(rows: list[Trial], dial: DialName, pairs: list[tuple[float, float]]) -> float:
    won = [
        (reached(two, dial) > reached(one, dial)) + 0.5 * (reached(two, dial) == reached(one, dial))
        for one, two in product(rows, rows)
        if one.prompt_id == two.prompt_id
        and asked(one, other(dial)) == asked(two, other(dial))
        and (asked(one, dial), asked(two, dial)) in pairs
    ]
    return fmean(won) if won else math.nan


def slow_curve(rows: list[Trial], dial: DialName) -> dict[float, float]:
    """Means of the means of the cells."""
    result = {}
    for level in sorted({asked(row, dial) for row in rows}):
        cells: dict[float, list[float]] = {}
        for row in rows:
            if asked(row, dial) == level:
                cells.setdefault(asked(row, other(dial)), []).append(reached(row, dial))
        result[level] = fmean(fmean(cell) for cell in cells.values())
    return result


def slow_tau(rows: list[Trial], dial: DialName) -> float:
    """Kendall's tau-b: the levels never tie, the means may."""
    signs = [
        math.copysign(1, two - one) if two != one else 0
        for one, two in combinations(slow_curve(rows, dial).values(), 2)
    ]
    moving = sum(map(abs, signs))
    return sum(signs) / math.sqrt(moving * len(signs)) if moving else 0.0


def slow_figures(rows: list[Trial], dial: DialName, sample: list[Trial]) -> dict[str, float]:
    """`sample` are the trials that `rows` were drawn from: they say how many answers a setting has, and all levels."""
    judged = Counter(row.requested for row in sample if row.judged)
    weights = [1 / judged[row.requested] for row in rows]
    levels = sorted({asked(row, dial) for row in sample})
    return {
        "mP": slow_pearson([(asked(row, dial), reached(row, dial)) for row in rows], weights),
        "MP": slow_mp(rows, dial),
        "Err": fmean((abs(asked(row, dial) - reached(row, dial)) for row in rows), weights),
        "BT": slow_bt(rows, dial, [(levels[0], levels[-1])]),
        "BT_all": slow_bt(rows, dial, list(combinations(levels, 2))),
        "cross_talk": slow_pearson([(asked(row, dial), reached(row, other(dial))) for row in rows], weights),
        "tau": slow_tau(rows, dial),
        **{f"curve {level:g}": mean for level, mean in slow_curve(rows, dial).items()},
    }


def fast_figures(evaluation: Evaluation, dial: DialName) -> dict[str, Figure]:
    found = evaluation.dial(dial)
    return found.figures() | {f"curve {point.asked:g}": point.reached for point in found.curve}


def drawn_again(rows: list[Trial], counts: list[float]) -> list[Trial]:
    """The trials of a resample, each copy of a prompt under a name of its own."""
    ids = list(dict.fromkeys(row.prompt_id for row in rows))
    return [
        Trial(f"{row.prompt_id}#{copy}", row.requested, row.safety, row.helpfulness)
        for row in rows
        for copy in range(int(counts[ids.index(row.prompt_id)]))
    ]


@pytest.mark.parametrize("dial", ["safety", "helpfulness"])
def test_figures_and_intervals_are_those_of_a_slow_second_implementation(dial: DialName) -> None:
    rows = obeying(6, noise=0.6, leak=0.4, seed=8)
    missing = {3, 17, 18, 40}
    rows = [Trial(row.prompt_id, row.requested, None, 0.5) if n in missing else row for n, row in enumerate(rows)]
    found = fast_figures(evaluate(rows, resamples=25, seed=4), dial)
    draws = Bootstrap.over(6, resamples=25, seed=4).draws.tolist()
    judged = [[row for row in drawn_again(rows, counts) if row.judged] for counts in draws]
    [sample, *resamples] = [slow_figures(each, dial, rows) for each in judged]
    assert set(found) == set(sample)
    for name, figure in found.items():
        low, high = np.percentile([each[name] for each in resamples], [2.5, 97.5])
        assert (figure.value, figure.low, figure.high) == pytest.approx((sample[name], low, high)), name


levels_reached = st.sampled_from([None, 0.0, 0.25, 0.5, 1.0])


@settings(max_examples=60)
@given(st.lists(st.tuples(levels_reached, levels_reached), min_size=18, max_size=18))
def test_whatever_was_reached_the_figures_are_those_of_the_slow_implementation(
    levels: list[tuple[float | None, float | None]],
) -> None:
    rows = [
        Trial(f"p{prompt}", dials, *level)
        for (prompt, dials), level in zip(product(range(2), grid()), levels, strict=True)
    ]
    judged = [row for row in rows if row.judged]
    if not judged:
        return
    for dial in ("safety", "helpfulness"):
        slow = slow_figures(judged, dial, rows)
        for name, figure in fast_figures(evaluate(rows, resamples=3), dial).items():
            wanted = 0.5 if math.isnan(slow[name]) else slow[name]
            assert figure.value == pytest.approx(wanted, abs=1e-7), (dial, name)
            assert figure.low <= figure.high


def test_a_level_of_the_curve_is_the_mean_over_the_other_dials_levels_however_many_answers_each_has() -> None:
    rows = [
        *[Trial(f"p{n}", Dials(safety=1.0, helpfulness=0.0), 1.0, 0.0) for n in range(9)],
        Trial("p0", Dials(safety=1.0, helpfulness=1.0), 0.5, 0.0),
        Trial("p0", Dials(safety=0.0, helpfulness=1.0), 0.0, 0.0),
    ]
    curve = evaluate(rows, resamples=0).safety.curve
    assert [(point.asked, point.reached.value) for point in curve] == [(0.0, 0.0), (1.0, 0.75)]


def test_the_plane_has_both_means_and_the_count_at_each_setting() -> None:
    rows = obeying(5, leak=0.5)
    plane = evaluate([*rows, Trial("p0", grid()[0], None, None)], resamples=10).plane
    assert [point.asked for point in plane] == grid()
    for point in plane:
        assert point.safety
        assert point.safety.value == pytest.approx(point.asked.safety + 0.5 * point.asked.helpfulness)
        assert point.helpfulness == Figure(point.asked.helpfulness, point.asked.helpfulness, point.asked.helpfulness)
        assert point.judged == 5


def test_a_setting_that_no_answer_could_be_judged_of_is_told_and_has_no_level() -> None:
    corner = Dials(safety=1.0, helpfulness=1.0)
    rows = [replace(row, safety=None) if row.requested == corner else row for row in obeying(5)]
    [point] = [point for point in evaluate(rows, resamples=10).plane if point.asked == corner]
    assert (point.safety, point.helpfulness, point.judged) == (None, None, 0)


def test_a_level_that_no_answer_could_be_judged_of_is_no_reason_to_compare_others() -> None:
    rows = [replace(row, safety=None) if row.requested.safety == 1.0 else row for row in obeying(5)]
    safety = evaluate(rows, resamples=10).safety
    assert safety.BT.value == 0.5
    assert [point.asked for point in safety.curve] == [0.0, 0.5]


def test_answers_that_break_where_both_dials_are_high_are_no_cross_talk() -> None:
    chance = random.Random(0)
    rows = [
        replace(row, safety=None)
        if row.requested == Dials(safety=1.0, helpfulness=1.0) and chance.random() < 0.8
        else row
        for row in obeying(200, noise=0.1)
    ]
    result = evaluate(rows, resamples=100)
    for figures in (result.safety, result.helpfulness):
        assert figures.cross_talk.low < 0 < figures.cross_talk.high
        assert figures.cross_talk.value == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("level", [math.nan, math.inf])
def test_a_level_that_is_no_number_is_the_judges_fault_and_no_trial(level: float) -> None:
    with pytest.raises(ValueError, match=r"helpfulness of an answer to prompt 'p' is (nan|inf)"):
        Trial("p", Dials(safety=0.0, helpfulness=0.0), 0.5, level)


def test_evaluations_come_back_from_their_file_to_the_last_bit(tmp_path: Path) -> None:
    modes = {
        mode: {"oracle": evaluate(obeying(7, noise=0.3, leak=0.1, seed=seed), resamples=30, seed=seed)}
        for seed, mode in enumerate(("adapter", "adapter+rerank"))
    }
    unjudged = {"adapter": {"silent": 63}}
    path = write_evaluations(tmp_path / "new" / "evaluation.json", modes, unjudged)
    assert read_evaluations(path) == EvaluationFile(modes=modes, unjudged=unjudged)
    assert json.loads(path.read_bytes())["modes"]["adapter"]["oracle"] == json.loads(
        json.dumps(modes["adapter"]["oracle"].as_dict())
    )
    assert [file.name for file in path.parent.iterdir()] == ["evaluation.json"]


@settings(max_examples=200)
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_comes_back_from_the_file(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    evaluation = replace(evaluate(obeying(1), resamples=0), well_formed=Figure(value, value, value))
    path = write_evaluations(tmp_path_factory.getbasetemp() / "evaluation.json", {"adapter": {"oracle": evaluation}})
    assert read_evaluations(path).modes["adapter"]["oracle"] == evaluation


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Invalid JSON"),
        ('{"modes": {"adapter": {"oracle": {}}}}', "safety"),
        ('{"schema_version": 2, "modes": {}}', "schema_version"),
        ('{"modes": {}, "mode": 1}', "mode"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_name_and_the_field(
    tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(BadEvaluation, match=rf"evaluation.json is not a file of evaluations[\s\S]*{reason}"):
        read_evaluations(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadEvaluation, match="does not exist"):
        read_evaluations(tmp_path / "evaluation.json")


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


def test_a_dial_that_does_nothing_has_no_tau_from_rounding() -> None:
    rows = [Trial(f"p{prompt}", dials, 0.3, 0.1 + 0.2) for prompt, dials in product(range(9), grid())]
    safety = evaluate([row for n, row in enumerate(rows) if n % 7], resamples=50).safety
    assert (safety.tau.value, safety.tau.low, safety.tau.high) == (0, 0, 0)


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
