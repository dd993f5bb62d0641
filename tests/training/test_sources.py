"""What a configuration names is found at once, and loaded when it is asked for."""

from pathlib import Path

import pytest

from rheostat_training import sources
from rheostat_training.config import BadConfig, BaseModel, Generate
from rheostat_training.samplers.offline import VllmSampler
from rheostat_training.samplers.server import ServerSampler
from rheostat_training.score import ScorerPair
from rheostat_training.sources import judge_of, sampler_of


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


def key_of(value: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setenv("SOME_KEY", value)
    plan = Generate(engine="server", url="http://127.0.0.1:9", served_model="m", key_variable="SOME_KEY")
    sampler = sampler_of(plan, BaseModel(), pytest.fail)
    assert isinstance(sampler, ServerSampler)
    return sampler.key


def test_blanks_around_a_key_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(" sk-SECRET\n", monkeypatch) == "sk-SECRET"


@pytest.mark.parametrize("key", ["sk-SECRÉT", "sk-SEC\nRET", "sk-SEC\x01RET", " \n"])
def test_what_is_no_key_is_refused_by_the_variables_name_alone(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadConfig, match="'SOME_KEY'") as refused:
        key_of(key, monkeypatch)
    assert "sk-" not in str(refused.value)


def test_vllm_loads_the_base_model_in_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, object]] = []
    monkeypatch.setattr(sources, "find_spec", lambda name: True)
    monkeypatch.setattr(VllmSampler, "load", lambda folder, digest, **arguments: given.append(arguments))
    for own in ({}, {"dtype": "half"}):
        sampler_of(Generate(engine="vllm", vllm=own), BaseModel(dtype="bfloat16"), pytest.fail)
    assert [each["dtype"] for each in given] == ["bfloat16", "half"]
