"""A whole run in miniature: its stages, its files, going on, and the page of its masks."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rheostat_server import demo
from rheostat_server.contract.blend import read_blend
from rheostat_server.contract.dials import Dials
from rheostat_server.contract.digest import adapter_digest
from rheostat_server.contract.manifest import read_manifest
from rheostat_training.cli import app
from rheostat_training.config import BadConfig
from rheostat_training.equilibrate.config import parse_equilibrate, read_equilibrate
from rheostat_training.equilibrate.pairs import BEST
from rheostat_training.equilibrate.run import ADAPTERS, BLEND, FIGURES, Measured, run, run_cell, run_pool
from rheostat_training.progress import Progress
from rheostat_training.resume import read_value
from rheostat_training.rows import Sample, read_rows

MINIATURE = Path(__file__).parent / "miniature.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("equilibrate")
    run(read_equilibrate(MINIATURE), out, progress=Progress.silent(), say=lambda line: None)
    return out


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
        assert each.perplexity > 1


def test_a_second_run_makes_nothing_anew_and_another_method_fits_alone(made: Path) -> None:
    said: list[str] = []
    run(read_equilibrate(MINIATURE), made, progress=Progress.silent(), say=said.append)
    assert all("unchanged" in line for line in said)
    said.clear()
    config = read_equilibrate(MINIATURE, ["method=dpo"])
    run(config, made, progress=Progress.silent(), say=said.append)
    assert [line.split(":")[0] for line in said if "unchanged" in line] == ["answers", "judge", "base"]
    run(read_equilibrate(MINIATURE), made, progress=Progress.silent(), say=lambda line: None)


@pytest.mark.parametrize(
    ("method", "settings", "components"),
    [
        ("arj", {"rewards": {"cost": {"passes": 1}}, "pairs": {"safe_from": 0.5}}, {"equilibrate"}),
        ("appo", {"reinforce": {"steps": 1, "prompts_per_step": 2, "samples": 2, "batch_rows": 4}}, {"equilibrate"}),
        ("bfpo", {}, {"equilibrate"}),
        ("midpo", {"passes": 0.5}, {"safety", "helpfulness"}),
        ("safe-patching", {"patch": {"steps": 1, "batch_rows": 2, "importance_rows": 2}}, {"patch"}),
    ],
)
def test_every_other_method_makes_its_components_from_the_same_answers(
    made: Path, tmp_path: Path, method: str, settings: dict[str, object], components: set[str]
) -> None:
    said: list[str] = []
    pool = run_pool(read_equilibrate(MINIATURE), made, progress=Progress.silent(), say=said.append)
    assert all("unchanged" in line for line in said)
    shared = yaml.safe_load(MINIATURE.read_text())
    config = parse_equilibrate({**shared, **settings, "method": method})
    done = run_cell(config, pool, tmp_path, progress=Progress.silent(), say=lambda line: None)
    assert {part.name for part in read_blend(tmp_path / BLEND).components} == components
    found = read_value(tmp_path / FIGURES, dict[str, Measured])
    assert found.keys() == {"base", "method", *(["router"] if method == "midpo" else [])}
    assert found["method"].perplexity > 1
    figures = done["fit"].figures
    assert figures
    assert ("equilibrate kept_share" in figures) == (method in ("arj", "appo"))
    assert (tmp_path / ADAPTERS).exists() == (method == "appo")


def test_pairs_with_control_text_make_an_adapter_that_is_served_by_itself_and_in_a_blend(
    made: Path, tmp_path: Path
) -> None:
    pool = run_pool(read_equilibrate(MINIATURE), made, progress=Progress.silent(), say=lambda line: None)
    config = read_equilibrate(MINIATURE, ["pairs.control_share=0.5"])
    run_cell(config, pool, tmp_path, progress=Progress.silent(), say=lambda line: None)
    manifest = read_manifest(tmp_path / ADAPTERS / "equilibrate")
    assert manifest.name == "miniature"
    assert manifest.dials["safety"].levels == [0, 0.25, 0.5, 0.75, 1]
    blend = read_blend(tmp_path / BLEND)
    assert blend.control_text == manifest.control_text
    [asked] = {row.dials for row in read_rows(tmp_path / "measure" / "samples.jsonl", Sample)}
    assert asked == BEST
    run_cell(read_equilibrate(MINIATURE), pool, tmp_path, progress=Progress.silent(), say=lambda line: None)
    assert not (tmp_path / ADAPTERS).exists()


def test_a_blend_can_hold_an_adapter_that_obeys_control_text(made: Path, tmp_path: Path) -> None:
    pool = run_pool(read_equilibrate(MINIATURE), made, progress=Progress.silent(), say=lambda line: None)
    obeying = demo.base_folder().parent / "adapter"
    config = read_equilibrate(MINIATURE, ["method=dpo", f"control_adapter={obeying}"])
    run_cell(config, pool, tmp_path, progress=Progress.silent(), say=lambda line: None)
    blend = read_blend(tmp_path / BLEND)
    assert [part.name for part in blend.components] == ["equilibrate", "control"]
    assert blend.control_text == read_manifest(obeying).control_text


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
