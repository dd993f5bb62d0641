"""What two windows hold fades as they say, and frees when they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.limits.quota import MINUTE, Used, left_of_two_windows


def windows_after(before: int, fades_in: float, now: int, after: float) -> Used:
    """The same windows some seconds on, when the counter has moved the one that is over."""
    if after < fades_in:
        left = fades_in - after
        return left_of_two_windows(10**9, before=before, fades_in=left, now=now, ends_in=left)
    left = max(0.0, fades_in + MINUTE - after)
    return left_of_two_windows(10**9, before=now, fades_in=left, now=0, ends_in=left)


@pytest.mark.parametrize(
    ("before", "fades_in", "now", "expected"),
    [
        (0, 0.0, 0, Used()),
        (0, 60.0, 100, Used(100, 60.0)),
        (60, 30.0, 0, Used(30, 0.0)),
        (0, 60.0, 200, Used(200, 90.0)),
        (120, 30.0, 90, Used(150, 25.0)),
    ],
)
def test_use_is_what_fades_and_what_is_new(before: int, fades_in: float, now: int, expected: Used) -> None:
    assert left_of_two_windows(100, before=before, fades_in=fades_in, now=now, ends_in=fades_in) == expected


@given(
    before=st.integers(0, 10_000), fades_in=st.floats(0.5, 60), now=st.integers(0, 10_000), limit=st.integers(1, 5000)
)
def test_there_is_room_when_it_is_told_and_not_a_second_before(
    before: int, fades_in: float, now: int, limit: int
) -> None:
    used = left_of_two_windows(limit, before=before, fades_in=fades_in, now=now, ends_in=fades_in)
    if used.amount < limit:
        return
    assert 0 <= used.frees_in <= 2 * MINUTE
    assert windows_after(before, fades_in, now, used.frees_in + 0.01).amount < limit
    if used.frees_in > 1:
        assert windows_after(before, fades_in, now, used.frees_in - 1).amount >= limit
