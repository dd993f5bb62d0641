"""The study: its cells, the pool that they share, its tables and pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rheostat_training.config import BadConfig
from rheostat_training.equilibrate.ama.masks import KEPT_CHOSEN, KEPT_REJECTED, KEPT_WHOLE
from rheostat_training.equilibrate.answers import JudgedAnswer, answered
from rheostat_training.equilibrate.config import SETTINGS
from rheostat_training.equilibrate.data import held_out_prompts
from rheostat_training.equilibrate.measure import HARMLESS, Likelihood, measure, perplexity
from rheostat_training.equilibrate.methods.make import ROUTER_FOLDER, Made
from rheostat_training.equilibrate.run import FIGURES, JUDGED, LIKELIHOODS, MADE, Measured
from rheostat_training.equilibrate.study.plan import StudyPlan, cells, only, read_study, run_study
from rheostat_training.equilibrate.study.report import Row, plane, rows_of, scaling, table
from rheostat_training.progress import Progress
from rheostat_training.resume import write_value
from rheostat_training.rows import write_rows

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


MIDPO = {"method": "midpo", "data": {"mix": {"EHD": 2}}}
LEVELS = {"base": 0.0, "plain": 0.75, "MidPO": 0.0, "router": 0.75}
"""The safety of every answer to a harmful prompt, by what gave it."""


def write_measured(folder: Path, answerer: str) -> None:
    """Answers to all held-out prompts of the demo world, harmless ones declined by the plain method alone."""
    kinds = held_out_prompts("demo", 2).of
    rows = [
        JudgedAnswer(id, "said", 1.0 if kind in HARMLESS else LEVELS[answerer], 0.5, answerer == "plain")
        for id, kind in kinds.items()
    ]
    likely = [Likelihood("none-00000", -2.0, 2)]
    write_rows(folder / JUDGED, rows)
    write_rows(folder / LIKELIHOODS, likely)
    write_value(folder / FIGURES, Measured(measure(answered(rows, kinds)), perplexity(likely)), Measured)


def write_made(folder: Path, **kept: float) -> None:
    folder.mkdir(parents=True)
    write_value(folder / MADE, [Made("equilibrate", Path("adapter"), "safety", figures=kept)], list[Made])


@pytest.fixture
def told(tmp_path: Path) -> list[Row]:
    """The rows of a base and two cells of two seeds each."""
    methods = {"plain": {**MIDPO, "method": "dpo"}, "MidPO": MIDPO}
    plan = replace(PLAN, groups={"methods": methods, "scaling": {"EHD-2": MIDPO}}, seeds=(0, 1))
    write_measured(tmp_path / "pool" / "base", "base")
    for cell in cells(plan):
        folder = tmp_path / "cells" / cell.folder / "measure"
        masked = {KEPT_CHOSEN: 0.4 + 0.2 * cell.seed, KEPT_REJECTED: 1.0, KEPT_WHOLE: 0.25}
        write_made(folder.parent / "fit", **(masked if cell.group == "scaling" else {}))
        write_measured(folder, "plain" if cell.name == "plain" else "MidPO")
        if cell.name != "plain":
            write_measured(folder / ROUTER_FOLDER, "router")
    return rows_of(list(cells(plan)), tmp_path)


def test_what_the_router_said_is_a_row_beside_the_blend(told: list[Row]) -> None:
    safe = {(row.group, row.name): str(row.found.safe_rate) for row in told}
    assert safe == {
        ("", "base"): "0.000 [0.000, 0.459]",
        ("methods", "plain"): "1.000 [0.541, 1.000]",
        ("methods", "MidPO"): "0.000 [0.000, 0.459]",
        ("methods", "MidPO, router"): "1.000 [0.541, 1.000]",
        ("scaling", "EHD-2"): "0.000 [0.000, 0.459]",
        ("scaling", "EHD-2, router"): "1.000 [0.541, 1.000]",
    }
    assert scaling(told).startswith(b"\x89PNG")


def test_a_router_that_some_seeds_lack_is_no_row(tmp_path: Path) -> None:
    done = list(cells(replace(PLAN, groups={"methods": {"MidPO": MIDPO}}, seeds=(0, 1))))
    write_measured(tmp_path / "pool" / "base", "base")
    for cell in done:
        write_made(tmp_path / "cells" / cell.folder / "fit")
        write_measured(tmp_path / "cells" / cell.folder / "measure", "MidPO")
    write_measured(tmp_path / "cells" / done[0].folder / "measure" / ROUTER_FOLDER, "router")
    assert [row.name for row in rows_of(done, tmp_path)] == ["base", "MidPO"]


def test_rows_are_compared_with_the_first_and_tell_what_their_masks_kept(told: list[Row]) -> None:
    shown = {row.name: row.apart and [str(row.apart.safe_rate), str(row.apart.over_refusal)] for row in told}
    level, below = "0.000 [-0.459, 0.459]", "-1.000 [-1.000, -0.351]"
    assert shown == {
        "base": None,
        "plain": None,
        "MidPO": [below, "-1.000 [-1.000, -0.148]"],
        "MidPO, router": [level, "-1.000 [-1.000, -0.148]"],
        "EHD-2": [below, "-1.000 [-1.000, -0.148]"],
        "EHD-2, router": [level, "-1.000 [-1.000, -0.148]"],
    }
    lines = table(told).splitlines()
    assert [line for line in lines if line.startswith("| MidPO, router | 2") and "2.718 [2.718, 2.718] |" in line]
    [line] = [line for line in lines if line.startswith("| EHD-2 | 0.000") and ".50/1.00/.25" in line]
    assert f"| {below} |" in line
