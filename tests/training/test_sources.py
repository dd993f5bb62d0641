"""What a configuration names is found at once, and loaded when it is asked for."""

from pathlib import Path

import pytest

from rheostat_training.score import ScorerPair
from rheostat_training.sources import judge_of


def test_a_pair_of_scorers_is_loaded_once_and_only_when_it_is_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Path, ...]] = []
    load = ScorerPair.load

    def counting(*folders: Path, batch_rows: int, device: str) -> ScorerPair:
        loaded.append(folders)
        return load(*folders, batch_rows=batch_rows, device=device)

    monkeypatch.setattr(ScorerPair, "load", counting)
    named = judge_of("demo-scorers", batch_rows=3)
    assert named.digest.count("sha256:") == 2
    assert loaded == []
    assert named.judge is named.judge
    assert [[folder.name for folder in folders] for folders in loaded] == [["safety", "helpfulness"]]
