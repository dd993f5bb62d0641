"""The processes of one launch: when the first lets the others go, and when it must not."""

from pathlib import Path

import pytest
import torch

from rheostat_training import crew as processes
from rheostat_training.crew import Crew
from tests.training.launched import launched
from tools.processes import ProgramFailed


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    orders: list[str] = []
    monkeypatch.setattr(processes, "broadcast_object_list", orders.extend)
    return orders


@pytest.fixture
def crew() -> Crew:
    """The first of several."""
    found = Crew()
    found.many = True
    return found


def test_the_others_are_called_to_the_fit_and_let_go_at_the_end(crew: Crew, told: list[str]) -> None:
    with crew.leading():
        with crew.fitting():
            assert told == ["fit"]
        assert told == ["fit"]
    assert told == ["fit", "end"]


@pytest.mark.parametrize("fitted", [False, True])
def test_they_are_let_go_where_the_first_fails_by_itself(crew: Crew, told: list[str], fitted: bool) -> None:
    def leads() -> None:
        with crew.leading():
            if fitted:
                with crew.fitting():
                    pass
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        leads()
    assert told[-1] == "end"


def test_nothing_is_told_to_those_who_stand_in_the_fit(crew: Crew, told: list[str]) -> None:
    with pytest.raises(OSError, match="full"), crew.leading(), crew.fitting():
        raise OSError("the disk is full")
    assert told == ["fit"]


def first_fails() -> None:
    """The first process fails in the fit, while the others wait there for it."""
    crew = Crew()
    if crew.first:
        with crew.leading(), crew.fitting():
            raise OSError("the disk is full")
    assert crew.hear() == "fit"
    torch.distributed.all_reduce(torch.ones(1000))


@pytest.mark.slow
def test_a_launch_whose_first_process_fails_in_the_fit_ends(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="ended with status 1"):
        launched("tests.training.test_crew", log=tmp_path / "log")
    assert "the disk is full" in (tmp_path / "log").read_text()


if __name__ == "__main__":
    first_fails()
