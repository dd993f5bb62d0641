"""Schedules are data, and the number of candidates follows the engine's load."""

import pytest

from rheostat_server.engines import Occupancy
from rheostat_server.modes.reranking import HALVING, PLAIN, Check, Schedule, conversation
from rheostat_server.reranking.breadth import breadth


@pytest.mark.parametrize(("at", "keep"), [(0, 1), (-1, 1), (1.5, 1), (8, 0), (8, 2.5), (float("nan"), 1)])
def test_a_check_is_a_whole_number_or_a_share(at: float, keep: float) -> None:
    with pytest.raises(ValueError, match="must be a whole number from 1 or a share"):
        Check(at, keep)


def test_checks_of_one_kind_must_ascend() -> None:
    with pytest.raises(ValueError, match="checks at 16 and 8 must ascend"):
        Schedule((Check(16, 4), Check(8, 2)))


def test_halving_keeps_the_better_half_three_times() -> None:
    left, kept = 16, []
    for check in HALVING.checks:
        left = check.kept(left)
        kept.append((check.tokens(80), left))
    assert kept == [(20, 8), (40, 4), (60, 2)]


def test_half_of_one_candidate_is_one() -> None:
    assert Check(8, 0.5).kept(1) == 1
    assert Check(8, 4).kept(3) == 3


def test_a_stream_s_choice_is_the_last_check_of_its_schedule() -> None:
    schedule = Schedule((Check(8, 4), Check(40, 2))).then_one(16)
    assert [(check.at, check.keep) for check in schedule.checks] == [(8, 4), (16, 1)]
    assert [(check.at, check.keep) for check in PLAIN.then_one(16).checks] == [(16, 1)]


def test_a_check_at_a_share_takes_its_turn_among_those_at_tokens() -> None:
    schedule = Schedule((Check(0.5, 0.5), Check(8, 4))).then_one(16)
    assert [check.tokens(60) for check in schedule.in_order(60)] == [8, 16, 30]
    assert [check.tokens(20) for check in schedule.in_order(20)] == [8, 10, 16]


@pytest.mark.parametrize(
    ("engine", "requests", "candidates"),
    [
        (None, 9, 8),
        (Occupancy(running=0, waiting=0, room=64), 1, 8),
        (Occupancy(running=0, waiting=0, room=4), 1, 4),
        (Occupancy(running=60, waiting=0, room=64), 1, 4),
        (Occupancy(running=0, waiting=0, room=64), 16, 4),
        (Occupancy(running=64, waiting=0, room=64), 2, 1),
        (Occupancy(running=10, waiting=3, room=64), 2, 1),
    ],
)
def test_the_number_of_candidates_follows_the_load_and_says_why(
    engine: Occupancy | None, requests: int, candidates: int
) -> None:
    found = breadth(8, engine, least=1, requests=requests)
    assert found.candidates == candidates
    assert (found.why is None) == (candidates == 8)


def test_a_full_engine_gives_no_fewer_than_the_least() -> None:
    full = Occupancy(running=64, waiting=9, room=64)
    assert breadth(8, full, least=3, requests=50).candidates == 3


def test_scorers_read_the_texts_of_a_conversation_alone() -> None:
    parts = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "it?"},
    ]
    read = conversation([{"role": "user", "content": parts}, {"role": "assistant", "content": None}])
    assert [message["content"] for message in read] == ["What is\nit?", ""]
