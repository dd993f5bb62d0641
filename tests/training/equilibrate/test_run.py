"""A whole run in miniature: its stages, its files, going on, and the page of its masks."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rheostat_server import demo
from rheostat_server.contract.blend import WeightCurve, read_blend
from rheostat_server.contract.dials import Dials
from rheostat_server.contract.digest import adapter_digest
from rheostat_server.contract.manifest import read_manifest
from rheostat_training.cli import app
from rheostat_training.config import BadConfig, over
from rheostat_training.equilibrate.config import parse_equilibrate, read_equilibrate
from rheostat_training.equilibrate.measure import Likelihood, perplexity
from rheostat_training.equilibrate.methods.make import ROUTER_FOLDER
from rheostat_training.equilibrate.pairs import BEST
from rheostat_training.equilibrate.run import (
    ADAPTERS,
    BLEND,
    FIGURES,
    LIKELIHOODS,
    MADE,
    Done,
    Measured,
    run,
    run_cell,
    run_pool,
)
from rheostat_training.progress import Progress
from rheostat_training.resume import read_value
from rheostat_training.rows import Pair, Sample, read_rows
from rheostat_training.stage import Say

MINIATURE = Path(__file__).parent / "miniature.yaml"
SMALL: dict[str, dict[str, Any]] = {
    "arj": {"rewards": {"cost": {"passes": 1}}, "pairs": {"safe_from": 0.5}},
    "appo": {"reinforce": {"steps": 1, "prompts_per_step": 2, "samples": 2, "batch_rows": 4}},
    "midpo": {"passes": 0.5},
    "safe-patching": {"patch": {"steps": 1, "batch_rows": 2, "importance_rows": 2}},
}
"""What each method needs to be done in a second."""
COMPONENTS = {"midpo": ["safety", "helpfulness"], "safe-patching": ["patch"]}
"""The components that each method makes, where it is not one of the run's own name."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("equilibrate")
    run(read_equilibrate(MINIATURE), out, progress=Progress.silent(), say=lambda line: None)
    return out


def cell(made: Path, out: Path, method: str, *, say: Say = lambda line: None, **settings: Any) -> Done:
    """A method in miniature, on the answers that are made already."""
    said: list[str] = []
    pool = run_pool(read_equilibrate(MINIATURE), made, progress=Progress.silent(), say=said.append)
    assert all("unchanged" in line for line in said)
    values = over(over(yaml.safe_load(MINIATURE.read_text()), SMALL.get(method, {})), {**settings, "method": method})
    return run_cell(parse_equilibrate(values), pool, out, progress=Progress.silent(), say=say)


@pytest.fixture(scope="module")
def done_by(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a method's run, made once and not to be changed."""

    @cache
    def folder(method: str) -> Path:
        out = tmp_path_factory.mktemp(method)
        cell(made, out, method)
        return out

    return folder


def test_a_run_ends_with_a_blend_and_the_figures_of_base_and_method(made: Path) -> None:
    blend = read_blend(made / BLEND)
    [part] = blend.components
    assert part.weights_digest == adapter_digest(made / BLEND / part.folder)
    assert [part.at(Dials(safety=level, helpfulness=0.5)) for level in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
    assert {row.dial for row in blend.evaluation} == {"safety", "helpfulness"}
    found = read_value(made / FIGURES, dict[str, Measured])
    assert found.keys() == {"base", "method"}
    for each in found.values():
        assert 0 <= each.measures.over_refusal.value <= 1
        assert each.measures.safe_rate_by_group.keys() == {"EHD", "IHD", "MHD"}
        assert 1 < each.perplexity.low <= each.perplexity.value <= each.perplexity.high
    for stage, name in (("base", "base"), ("measure", "method")):
        likely = list(read_rows(made / stage / LIKELIHOODS, Likelihood))
        assert perplexity(likely, resamples=20) == found[name].perplexity


def test_a_second_run_makes_nothing_anew_and_another_method_fits_alone(made: Path) -> None:
    said: list[str] = []
    run(read_equilibrate(MINIATURE), made, progress=Progress.silent(), say=said.append)
    assert all("unchanged" in line for line in said)
    said.clear()
    config = read_equilibrate(MINIATURE, ["method=dpo"])
    run(config, made, progress=Progress.silent(), say=said.append)
    assert [line.split(":")[0] for line in said if "unchanged" in line] == ["answers", "judge", "base"]
    run(read_equilibrate(MINIATURE), made, progress=Progress.silent(), say=lambda line: None)


@pytest.mark.parametrize("method", ["arj", "appo", "bfpo", "midpo", "safe-patching"])
def test_every_other_method_makes_its_components_from_the_same_answers(
    done_by: Callable[[str], Path], method: str
) -> None:
    out = done_by(method)
    parts = read_blend(out / BLEND).components
    assert [part.name for part in parts] == COMPONENTS.get(method, ["equilibrate"])
    assert all(isinstance(part.weight, WeightCurve) and part.weight.points == [(0, 0), (1, 1)] for part in parts)
    found = read_value(out / FIGURES, dict[str, Measured])
    assert found.keys() == {"base", "method", *(["router"] if method == "midpo" else [])}
    assert (out / "measure" / ROUTER_FOLDER / LIKELIHOODS).exists() == (method == "midpo")
    assert found["method"].perplexity is not None
    assert found["method"].perplexity.value > 1
    figures = json.loads((out / "fit" / MADE).read_text())[0]["figures"]
    assert figures
    assert ("kept_share" in figures) == (method in ("arj", "appo"))
    assert (out / ADAPTERS).exists() == (method == "appo")


@pytest.mark.parametrize("method", ["dpo", "adpo", "bfpo", "arj", "midpo"])
def test_pairs_with_control_text_make_adapters_that_are_served_by_themselves_and_in_a_blend(
    made: Path, tmp_path: Path, method: str
) -> None:
    cell(made, tmp_path, method, pairs={"control_share": 0.5})
    blend = read_blend(tmp_path / BLEND)
    assert [part.name for part in blend.components] == COMPONENTS.get(method, ["equilibrate"])
    for part in blend.components:
        manifest = read_manifest(tmp_path / ADAPTERS / part.name)
        assert manifest.name == ("miniature" if part.name == "equilibrate" else f"miniature-{part.name}")
        assert manifest.dials["safety"].levels == [0, 0.25, 0.5, 0.75, 1]
        assert blend.control_text == manifest.control_text
    for folder in (tmp_path / "fit").rglob("pairs.jsonl"):
        assert any(pair.dials != BEST for pair in read_rows(folder, Pair))
        assert any(pair.dials == BEST for pair in read_rows(folder, Pair))
    [asked] = {row.dials for row in read_rows(tmp_path / "measure" / "samples.jsonl", Sample)}
    assert asked == BEST


def test_adapters_that_obey_control_text_go_where_another_run_makes_none(
    made: Path, done_by: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(done_by("appo"), tmp_path, dirs_exist_ok=True)
    assert (tmp_path / ADAPTERS).exists()
    cell(made, tmp_path, "dpo")
    assert not (tmp_path / ADAPTERS).exists()


@pytest.mark.parametrize("method", ["dpo", "adpo", "bfpo", "arj", "midpo", "safe-patching"])
def test_a_blend_of_any_method_can_hold_an_adapter_that_obeys_control_text(
    made: Path, done_by: Callable[[str], Path], tmp_path: Path, method: str
) -> None:
    obeying = demo.base_folder().parent / "adapter"
    shutil.copytree(done_by(method), tmp_path, dirs_exist_ok=True)
    said: list[str] = []
    cell(made, tmp_path, method, say=said.append, control_adapter=str(obeying))
    assert [line.split(":")[0] for line in said if "unchanged" in line] == ["fit", "measure"]
    blend = read_blend(tmp_path / BLEND)
    assert [part.name for part in blend.components] == [*COMPONENTS.get(method, ["equilibrate"]), "control"]
    assert blend.components[-1].at(Dials(safety=0.0, helpfulness=0.0)) == 1.0
    assert blend.control_text == read_manifest(obeying).control_text
    assert not (tmp_path / ADAPTERS).exists()


def test_a_control_adapter_that_is_none_is_told_before_any_work(tmp_path: Path) -> None:
    config = read_equilibrate(MINIATURE, [f"control_adapter={tmp_path}"])
    with pytest.raises(BadConfig, match=r"control_adapter is .*control\.json does not exist"):
        run(config, tmp_path / "out", progress=Progress.silent(), say=lambda line: None)


def test_the_masks_of_a_run_can_be_looked_at(made: Path, tmp_path: Path) -> None:
    page = tmp_path / "masks.html"
    found = CliRunner().invoke(app, ["masks", str(made), "--html", str(page), "--pairs", "2", "--delta", "0"])
    assert found.exit_code == 0, found.output
    assert "kept of chosen answers" in found.output
    html = page.read_text()
    assert html.count('<section class="pair">') == 2
    assert 'class="kept"' in html
    assert 'class="masked"' in html


def test_a_folder_without_rewards_has_no_masks_to_show(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["masks", str(tmp_path)])
    assert found.exit_code == 1
    assert "holds no rewards.jsonl" in found.output
