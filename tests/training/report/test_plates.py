"""The pictures: real PNG files of one size, the same bytes for the same facts, and words for each."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.image import imread

from rheostat_server.contract.dials import Dials
from rheostat_training.evaluate import CurvePoint, Figure, PlanePoint
from rheostat_training.report import RunFacts
from rheostat_training.report.plates import Plate, make_plates
from rheostat_training.report.plots import PIXELS, calibration_panel, pens, plane_panel, response_panel


@pytest.fixture(scope="module")
def plates(facts: RunFacts) -> list[Plate]:
    return make_plates(facts)


def test_there_is_a_panel_for_each_dial_and_judge_each_mode_each_calibrated_dial_and_the_loss(
    plates: list[Plate],
) -> None:
    assert [plate.file for plate in plates] == [
        "response-helpfulness-oracle.png", "response-helpfulness-judges.png", "response-helpfulness-scorers.png",
        "response-safety-oracle.png", "response-safety-judges.png", "response-safety-scorers.png",
        "plane-adapter.png", "plane-rerank-16.png",
        "calibration-adapter-helpfulness.png", "calibration-adapter-safety.png",
        "loss.png",
    ]  # fmt: skip


def test_every_picture_opens_and_has_the_size_that_the_page_reserves(
    plates: list[Plate], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pictures")
    assert PIXELS == (720, 700)
    for plate in plates:
        assert struct.unpack(">II", plate.png[16:24]) == PIXELS
        (folder / plate.file).write_bytes(plate.png)
        pixels = imread(folder / plate.file)
        assert pixels.shape[:2] == PIXELS[::-1]
        assert pixels[..., :3].std() > 0.02


def test_equal_facts_give_equal_bytes_and_nothing_names_what_drew_them(facts: RunFacts, plates: list[Plate]) -> None:
    assert make_plates(facts) == plates
    for plate in plates:
        assert b"tEXt" not in plate.png
        assert b"atplotlib" not in plate.png


def test_other_facts_give_other_pictures(facts: RunFacts, plates: list[Plate]) -> None:
    other = replace(facts, losses=[(1, 1.0), (2, 3.0)])
    assert make_plates(other)[-1].png != plates[-1].png
    assert make_plates(other)[:-1] == plates[:-1]


def test_each_picture_says_its_numbers(facts: RunFacts, plates: list[Plate]) -> None:
    curve = facts.modes["adapter"]["oracle"].helpfulness.curve
    [first, *_] = plates
    for point in curve:
        assert f"{point.reached.value:.2f} at {point.asked:g}" in first.alt
    assert "rerank-16:" in first.alt
    assert plates[-1].alt == "Training loss: 2.000 at step 1, 0.034 at step 59."
    assert "Attainable from 0.10 to 0.90" in plates[-2].alt
    assert plates[-2].alt.endswith("After, on other prompts: 0.11 at 0.1, 0.91 at 0.9.")


def test_the_plane_says_its_worst_setting(facts: RunFacts) -> None:
    exact = Figure(0.5, 0.5, 0.5)
    points = (
        PlanePoint(Dials(safety=0.5, helpfulness=0.5), exact, exact, 3),
        PlanePoint(Dials(safety=0.5, helpfulness=1.0), exact, exact, 3),
    )
    evaluation = replace(facts.modes["adapter"]["oracle"], plane=points)
    plates = make_plates(replace(facts, modes={"adapter": {"oracle": evaluation}}))
    [plane] = [plate for plate in plates if plate.section == "plane"]
    assert "Mean distance 0.25; largest 0.50, asked safety 0.5 and helpfulness 1, reached 0.50 and 0.50" in plane.alt


def test_names_that_differ_in_signs_alone_have_files_of_their_own(facts: RunFacts) -> None:
    found = facts.modes["adapter"]["judges"]
    modes = {"adapter": {"a/b": found, "a-b": found}}
    plates = make_plates(replace(facts, modes=modes, judges={"a/b": "held-out", "a-b": "held-out"}))
    names = [plate.file for plate in plates]
    assert len(set(names)) == len(names)
    assert {"response-safety-a-b.png", "response-safety-a-b-2.png"} <= set(names)


def test_lines_are_told_apart_without_colour() -> None:
    of = pens([f"mode-{number}" for number in range(12)])
    assert len({(pen.marker, pen.dash) for pen in of.values()}) == 12


def test_the_lines_drawn_are_the_curves() -> None:
    curve = [CurvePoint(asked, Figure(asked / 2, asked / 4, asked)) for asked in (0.0, 0.5, 1.0)]
    picture = response_panel("t", "safety", {"adapter": curve}, pens(["adapter"]))
    line = picture.axes[0].lines[1]
    assert np.asarray(line.get_xydata()).tolist() == [[0, 0], [0.5, 0.25], [1, 0.5]]


def test_the_points_drawn_are_the_planes() -> None:
    points = [
        PlanePoint(Dials(safety=s, helpfulness=0.25), Figure(s / 2, 0, 1), Figure(0.75, 0.5, 1.0), 1)
        for s in (0.0, 1.0)
    ]
    picture = plane_panel("t", points)
    drawn = [np.asarray(line.get_xydata()) for line in picture.axes[0].lines]
    assert any(np.array_equal(line, [[0.75, 0.0], [0.75, 0.5]]) for line in drawn)


def test_the_calibration_draws_what_the_check_measured(facts: RunFacts) -> None:
    assert facts.calibration is not None
    curve, checks = facts.calibration["adapter"]["safety"], facts.checked["adapter"].after["safety"]
    before, after = (calibration_panel("t", "safety", curve, shown).axes[0].lines for shown in ((), checks))
    assert len(after) == len(before) + 1
    assert np.asarray(after[-1].get_xydata()).tolist() == [[0.1, pytest.approx(0.11)], [0.9, pytest.approx(0.91)]]


def test_no_figure_is_left_with_pyplot(facts: RunFacts) -> None:
    before = pyplot.get_fignums()
    make_plates(facts)
    assert pyplot.get_fignums() == before
