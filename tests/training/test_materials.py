"""What several stages of a run share: prompts held out in an order that mixes, and models that are let go."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from rheostat_server.contract.dials import Dials
from rheostat_training import materials as stage
from rheostat_training.asking import Asker
from rheostat_training.config import parse_config
from rheostat_training.demo.asking import held_out
from rheostat_training.generate import SamplingPlan
from rheostat_training.materials import Materials
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.rows import Prompt, Request
from rheostat_training.score import CallableJudge


def sorted_by_category(path: Path) -> Path:
    rows = [{"id": f"{kind}-{n}", "prompt": f"{kind} question {n}"} for kind in ("mild", "harsh") for n in range(100)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def materials_of(prompts: object, seed: int = 0) -> Materials:
    config = {"seed": seed, "prompts": prompts, "evaluate": {"prompts": 20}, "calibrate": {"prompts": 20}}
    return Materials(parse_config(config), say=lambda line: None)


@pytest.mark.parametrize("own", [True, False])
def test_a_sorted_file_is_mixed_before_evaluation_and_calibration_take_theirs(tmp_path: Path, own: bool) -> None:
    file = str(sorted_by_category(tmp_path / "sorted.jsonl"))
    (tmp_path / "train.jsonl").write_text('{"prompt": "another question"}\n')
    asked = {"source": str(tmp_path / "train.jsonl"), "held_out": file} if own else {"source": file, "held_out": 0.5}
    found = materials_of(asked)
    for prompts in (found.evaluation_prompts, found.calibration_prompts):
        assert len(prompts) == 20
        assert 3 < sum(id.startswith("mild") for id in prompts) < 17
    assert not found.evaluation_prompts.keys() & found.calibration_prompts.keys()
    assert list(materials_of(asked).evaluation_prompts) == list(found.evaluation_prompts)
    assert list(materials_of(asked, seed=1).evaluation_prompts) != list(found.evaluation_prompts)


def test_the_demo_worlds_held_out_prompts_stand_as_they_do() -> None:
    demo = {"source": {"source": "demo", "count": 4}, "held_out": {"source": "demo", "split": "held-out", "count": 40}}
    found = materials_of(demo)
    assert [*found.evaluation_prompts, *found.calibration_prompts] == list(held_out(40))


def test_a_base_model_that_is_released_is_gone(
    make_model: Callable[[], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "load_base", lambda *_, **__: make_model())
    found = Materials(parse_config({}), say=lambda line: None)
    held = weakref.ref(found.base_to_fit.model)
    assert found.base.model is held()
    found.release()
    assert held() is None
    assert found.base is found.base


def test_of_a_base_model_and_its_adapters_one_is_held_at_a_time(
    make_model: Callable[[], LoadedModel], prompts: dict[str, Prompt], tmp_path: Path
) -> None:
    loaded: list[weakref.ref[object]] = []

    def load() -> LoadedModel:
        assert not [each for each in loaded if each() is not None]
        made = make_model()
        loaded.append(weakref.ref(made.model))
        return made

    judge, plan = CallableJudge(lambda *_: (0.5, 0.5)), SamplingPlan(samples=1, max_new_tokens=2)
    asker = Asker(lambda: load(), lambda: load(), judge, plan, Progress.silent())
    asked = [Request(prompt.id, prompt.messages, Dials(0.5, 0.5)) for prompt in prompts.values()]
    for mode in ("adapter", "off", "rerank-2", "adapter"):
        assert len(asker.answers(mode, asked, tmp_path / f"{mode} {len(loaded)}")) == len(asked)
    assert len(loaded) == 3
