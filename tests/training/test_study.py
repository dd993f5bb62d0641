"""The study: which runs it makes, that those of one source share their answers, and what its tables say."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from rheostat_training.config import BadConfig
from rheostat_training.evaluate import Trial, evaluate, grid, write_evaluations
from rheostat_training.progress import Progress
from rheostat_training.publish import publish
from rheostat_training.study.cells import StudyPlan, cells, read_study, with_seeds
from rheostat_training.study.run import run_study
from rheostat_training.study.table import tables

ROOT = Path(__file__).parents[2]
MINIATURE = yaml.safe_load((Path(__file__).parent / "miniature.yaml").read_text())
PLAN = StudyPlan(
    run={**MINIATURE, "evaluate": {**MINIATURE["evaluate"], "judges": {"oracle": "demo-oracle"}}},
    methods={"clm": {"fit": {"loss": "clm"}}, "exmate": {"fit": {"loss": "exmate"}}},
    seeds=(0,),
    baselines=("rerank-2",),
)


def test_a_study_compares_methods_data_scales_and_weights() -> None:
    plan = replace(PLAN, seeds=(0, 1), scales=(6,), compared=("clm",), alphas=(0.0, 1.0))
    found = list(cells(plan))
    assert [cell.name for cell in found if cell.seed == 0] == [
        "methods-clm-moec-all-0", "methods-clm-raw-all-0", "methods-exmate-moec-all-0", "methods-exmate-raw-all-0",
        "scales-clm-moec-6-prompts-0", "controls-clm-moec-mismatched-0",
        "alphas-exmate-moec-alpha-0.0-0", "alphas-exmate-moec-alpha-1.0-0",
    ]  # fmt: skip
    assert len(found) == 16
    by_name = {cell.name: cell.config for cell in found}
    assert by_name["methods-clm-raw-all-1"].distil.method == "raw"
    assert by_name["methods-clm-raw-all-1"].generate.sampling.seed == 1
    assert by_name["scales-clm-moec-6-prompts-0"].prompts.source.count == 6
    assert by_name["controls-clm-moec-mismatched-0"].distil.control == "mismatched"
    assert by_name["alphas-exmate-moec-alpha-1.0-0"].fit.alpha == 1.0
    assert by_name["alphas-exmate-moec-alpha-1.0-0"].fit.steps == MINIATURE["fit"]["steps"]


def test_the_study_that_ships_is_valid() -> None:
    plan = read_study(ROOT / "training" / "configs" / "study.yaml")
    assert len(plan.seeds) == 3
    assert {cell.method for cell in cells(plan)} >= {"clm", "exmate", "dpo"}


def test_a_methods_own_distil_settings_hold_in_every_group() -> None:
    methods = {"clm": {"fit": {"loss": "clm"}, "distil": {"per_cell": 7, "levels": 3}}}
    plan = replace(PLAN, methods=methods, scales=(6,), compared=("clm",))
    assert {(cell.config.distil.per_cell, cell.config.distil.levels) for cell in cells(plan)} == {(7, 3)}


def test_every_seed_asks_for_answers_of_its_own() -> None:
    plan = read_study(ROOT / "training" / "configs" / "study.yaml")
    assert {(cell.seed, cell.config.evaluate.sampling.seed) for cell in cells(plan)} == {(0, 0), (1, 1), (2, 2)}


def test_a_table_tells_every_seed_and_one_that_could_not_be_judged(tmp_path: Path) -> None:
    plan = replace(PLAN, methods={"clm": {"fit": {"loss": "clm"}}}, seeds=(0, 1), scales=(6,), compared=("clm",))
    done = [cell for cell in cells(plan) if cell.data == "moec" and cell.variant != "mismatched"]
    for number, cell in enumerate(done):
        trials = [Trial(f"p{n}", dials, dials.safety, 0.1 * number) for n in range(3) for dials in grid()]
        modes = {} if cell.name == "methods-clm-moec-all-1" else {"oracle": evaluate(trials, resamples=10)}
        unjudged = {} if modes else {"adapter": {"oracle": 27}}
        write_evaluations(tmp_path / "cells" / cell.name / "evaluate" / "figures.json", {"adapter": modes}, unjudged)
        marks = tmp_path / "cells" / cell.name / "stages" / "fit" / "done.json"
        marks.parent.mkdir(parents=True)
        marks.write_text(json.dumps({"figures": {"positives": 9, "seconds": 4.0, "steps": 2, "tokens": 80}}))
    methods, scales = tables(done, tmp_path).split("## Scales")
    assert "| clm moec | oracle | 1 of 2 | **1.000** (1.000) [1.000, 1.000] |" in methods
    assert "| **0.500** (1.000, 0.000) [0.000, 1.000] |" in methods
    assert "| clm moec 12-prompts | oracle | 1 of 2 |" in scales
    assert "| clm moec 6-prompts | oracle | 2 | **1.000** (1.000, 1.000) [1.000, 1.000] |" in scales


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seeds": []}, "seeds are none"),
        ({"seeds": [1, 1]}, "each makes its cells once"),
        ({"scales": [12], "compared": ["clm"]}, "scales holds 12"),
        ({"compared": ["hope"]}, "hope"),
        ({"seed": [1]}, "seed: unknown key; did you mean 'seeds'"),
        ({"seed": [1], "alpha": [1]}, "alpha: unknown key; did you mean 'alphas'"),
        ({"run": {"fitt": {}}}, "did you mean 'fit'"),
        ({"methods": {"clm": {"fit": {"los": "clm"}}}}, "methods.clm has 1 error.*\n.*fit.los: unknown key"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"run": MINIATURE, "methods": {"clm": {}}, **change}))
    with pytest.raises(BadConfig, match=complaint):
        read_study(path)


def test_a_study_can_be_shared_by_seed() -> None:
    plan = replace(PLAN, seeds=(0, 1, 2))
    assert {cell.seed for cell in cells(with_seeds(plan, [2, 0]))} == {0, 2}
    assert with_seeds(plan, [1, 1]).seeds == (1,)
    assert with_seeds(plan, None) == plan
    with pytest.raises(BadConfig, match=r"seed is 7; the study's seeds are 0, 1, 2"):
        with_seeds(plan, [7])


@pytest.mark.slow
def test_cells_share_their_answers_and_the_tables_hold_every_method_and_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    said: list[str] = []
    kept: list[Path] = []

    def interrupted(source: Path, place: Path) -> None:
        if kept:
            raise KeyboardInterrupt
        kept.append(publish(source, place))

    with monkeypatch.context() as patch:
        patch.setattr("rheostat_training.study.run.publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_study(PLAN, tmp_path, progress=Progress.silent(), say=said.append)
    done = run_study(PLAN, tmp_path, progress=Progress.silent(), say=said.append)
    made = [line for line in said if "generate: done" in line]
    assert len(made) == 1
    table = tables(done, tmp_path)
    for label in ("| rerank-2 |", "| clm moec |", "| clm raw |", "| exmate moec |", "| exmate raw |"):
        assert label in table
    assert re.search(r"\| clm moec \| [\d,]+ \| \d\.\d{3} \| 1\.00 \|", table.split("## What training takes")[1])
    number = r"-?\d\.\d{3}"
    assert re.search(rf"\| clm moec \| oracle \| 1 \| \*\*{number}\*\* \({number}\) \[{number}, {number}\]", table)
    said.clear()
    run_study(PLAN, tmp_path, progress=Progress.silent(), say=said.append)
    assert [line for line in said if "done in" in line] == []
