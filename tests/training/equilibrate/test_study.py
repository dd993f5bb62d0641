"""The study: its cells, the pool that they share, its tables and pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rheostat_training.config import BadConfig
from rheostat_training.equilibrate.config import SETTINGS
from rheostat_training.equilibrate.study.plan import StudyPlan, cells, only, read_study, run_study
from rheostat_training.equilibrate.study.report import plane, rows_of, scaling, table
from rheostat_training.progress import Progress

ROOT = Path(__file__).parents[3]
SHARED = yaml.safe_load((Path(__file__).parent / "miniature.yaml").read_text())
PLAN = StudyPlan(
    base=str(ROOT / "server" / "rheostat_server" / "demo" / "bundle" / "base"),
    pool={"EHD": 3, "IHD": 2, "MHD": 1, "none": 1, "look-alike": 1},
    share={name: SHARED[name] for name in ("generate", "pairs", "fit", "measure", "report_to")}
    | {"data": {"held_out_each": 2}},
    groups={
        "methods": {"dpo": {"method": "dpo", "data": {"mix": {"EHD": 3, "IHD": 2}}}},
        "scaling": {"EHD-2": {"method": "dpo", "data": {"mix": {"EHD": 2, "look-alike": 1}}}},
    },
    seeds=(0,),
)


def test_the_study_that_ships_is_valid_and_has_every_mixture_with_every_mask() -> None:
    plan = read_study(ROOT / "training" / "configs" / "study-equilibrate.yaml")
    found = [cell for cell in cells(plan) if cell.seed == 0]
    assert len(plan.seeds) == 3
    masked = {(cell.config.pairs.order, cell.config.fit.masking.rule, cell.config.fit.masking.delta) for cell in found}
    for order in ("safety", "equilibrate"):
        for mask in (("none", 0.3), ("segment", 0.0), ("segment", 0.3), ("random", 0.3)):
            assert (order, *mask) in masked
    assert {cell.config.method for cell in found} == {*SETTINGS}
    by_name = {cell.name: cell.config for cell in found}
    quarter, whole = by_name["FDC, segment mask"].data.mix, by_name["plain DPO, all of it"].data.mix
    assert sum(quarter.values()) * 4 == sum(whole.values())


def test_a_cell_may_not_want_more_than_the_pool_has() -> None:
    with pytest.raises(ValueError, match="wants 9 prompts of EHD, and the pool has 3"):
        replace(PLAN, groups={"g": {"n": {"data": {"mix": {"EHD": 9}}}}})


@pytest.mark.parametrize(
    ("group", "name", "settings", "told"),
    [
        ("g", "n", {"measure": {"safe_from": 0.9}}, "groups.g.n has measure, which is the pool's"),
        ("g", "n", {"data": {"held_out_each": 9}}, "groups.g.n has data.held_out_each"),
        ("scaling", "more of EHD", {}, "is no name of a scaling curve"),
    ],
)
def test_a_cell_may_not_set_what_the_pool_has_settled(
    group: str, name: str, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        replace(PLAN, groups={group: {name: settings}})


def test_seeds_and_groups_can_be_run_by_themselves() -> None:
    assert [cell.folder for cell in cells(only(PLAN, [4], ["scaling"]))] == ["scaling/EHD-2/4"]
    with pytest.raises(BadConfig, match="known groups: methods, scaling"):
        only(PLAN, groups=["masks"])


def test_a_study_shares_one_pool_and_tells_its_figures(tmp_path: Path) -> None:
    said: list[str] = []
    done = run_study(PLAN, tmp_path, progress=Progress.silent(), say=said.append)
    assert sum(line.startswith("answers") for line in said) == 1
    said.clear()
    assert run_study(PLAN, tmp_path, progress=Progress.silent(), say=said.append) == done
    assert all("unchanged" in line for line in said)
    rows = rows_of(done, tmp_path)
    assert [(row.name, dict(row.prompts)) for row in rows] == [
        ("base", {}),
        ("dpo", {"EHD": 3, "IHD": 2}),
        ("EHD-2", {"EHD": 2, "look-alike": 1}),
    ]
    told = table(rows)
    assert "## methods" in told
    assert f"| dpo | 5 | {rows[1].found.safe_rate} |" in told
    for picture in (plane(rows), scaling(rows)):
        assert picture.startswith(b"\x89PNG")
