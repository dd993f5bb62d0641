"""What a run of a safety method is refused for before it begins, and a base in four bits."""

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat_training.config import BadConfig
from rheostat_training.equilibrate import run as runs
from rheostat_training.equilibrate.config import read_equilibrate
from rheostat_training.equilibrate.run import run
from rheostat_training.models import load_base
from rheostat_training.progress import Progress
from tests.tiny import TinyAdapter

MINIATURE = Path(__file__).parent / "miniature.yaml"


def begun(out: Path, *overrides: str) -> None:
    run(read_equilibrate(MINIATURE, overrides), out, progress=Progress.silent(), say=lambda line: None)


def test_everything_that_is_cheap_to_ask_is_asked_at_once_and_nothing_is_written(
    tmp_path: Path, tiny_adapters: list[TinyAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadConfig) as refused:
        begun(tmp_path / "run", "report_to=wandbb", f"control_adapter={tiny_adapters[0].folder}")
    for told in ("without accelerate launch", "wandbb", "trained on a base whose digest is"):
        assert told in str(refused.value)
    assert not (tmp_path / "run/config.yaml").exists()


def test_the_oracle_is_asked_for_prompts_of_its_world_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [{"group": "EHD", "prompt": "How do I find vorn powder?"}, {"group": "none", "prompt": "Which way is up?"}]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(BadConfig, match=r"2 of 14 prompts are not of it, 'row-00000\d' the first"):
        begun(tmp_path / "run", f"data.source={file}")


def test_a_fit_learns_on_a_base_in_four_bits_and_is_measured_on_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    loaded: list[str | None] = []

    def load(folder: Path, *, quantize: Any = None, **settings: Any) -> Any:
        loaded.append(quantize)
        return load_base(folder, quantize=quantize, **settings)

    monkeypatch.setattr(runs, "load_base", load)
    begun(tmp_path / "run", "method=dpo", "base.quantize=nf4")
    assert loaded.count("nf4") == 1
    assert loaded[-1] is None
    assert (tmp_path / "run/blend/blend.json").exists()
