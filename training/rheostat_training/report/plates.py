"""A report's pictures: what each one shows, the name of its file, and what it says to those who cannot see it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import Literal

from rheostat_server.contract.calibration import DialCalibration
from rheostat_training.calibrate import Check
from rheostat_training.evaluate import CurvePoint, PlanePoint
from rheostat_training.report.facts import DIALS_SHOWN, Losses, RunFacts
from rheostat_training.report.plots import calibration_panel, loss_panel, pens, plane_panel, png, response_panel

Section = Literal["response", "plane", "calibration", "loss"]


@dataclass(frozen=True, slots=True)
class Plate:
    """One picture: where it belongs, its file's name, its text, and its bytes."""

    section: Section
    file: str
    alt: str
    png: bytes


def make_plates(facts: RunFacts) -> list[Plate]:
    """Every picture that the facts allow, each under a name of its own."""
    plates = [*_responses(facts), *_planes(facts), *_calibrations(facts)]
    if facts.losses:
        picture = loss_panel("training loss", facts.losses)
        plates.append(Plate("loss", "loss.png", _loss_alt(facts.losses), png(picture)))
    return list(_with_unique_names(plates))


def _responses(facts: RunFacts) -> Iterator[Plate]:
    """A panel for each dial and judge, a line for each mode."""
    of = pens(facts.mode_names)
    for dial in DIALS_SHOWN:
        for judge in facts.judge_names:
            modes = [mode for mode in facts.mode_names if judge in facts.modes[mode]]
            curves = {mode: facts.modes[mode][judge].dial(dial).curve for mode in modes}
            picture = response_panel(f"{dial}, read by {judge}", dial, curves, of)
            alt = f"Mean {dial} reached against {dial} asked, as {judge} reads it. {_curves_alt(curves)}"
            yield Plate("response", _file("response", dial, judge), alt, png(picture))


def _planes(facts: RunFacts) -> Iterator[Plate]:
    """A panel for each mode, by the most trusted judge."""
    judge = facts.reference_judge
    for mode in facts.mode_names:
        if judge in facts.modes[mode]:
            points = facts.modes[mode][judge].plane
            picture = plane_panel(f"{mode}, read by {judge}", points)
            yield Plate("plane", _file("plane", mode), _plane_alt(mode, judge, points), png(picture))


def _calibrations(facts: RunFacts) -> Iterator[Plate]:
    """A panel for each calibrated mode and dial: before, and after as other prompts checked it."""
    for mode, curves in (facts.calibration or {}).items():
        for dial in DIALS_SHOWN:
            if dial in curves:
                checks = facts.checked[mode].after[dial] if mode in facts.checked else ()
                picture = calibration_panel(f"{dial}, {mode}", dial, curves[dial], checks)
                alt = f"Calibration of {dial} in mode {mode}. {_calibration_alt(curves[dial])} {_after_alt(checks)}"
                yield Plate("calibration", _file("calibration", mode, dial), alt.strip(), png(picture))


def _curves_alt(curves: Mapping[str, Sequence[CurvePoint]]) -> str:
    return " ".join(
        f"{name}: {', '.join(f'{point.reached.value:z.2f} at {point.asked:g}' for point in curve)}."
        for name, curve in curves.items()
    )


def _after_alt(checks: Sequence[Check]) -> str:
    said = ", ".join(f"{check.reached:z.2f} at {check.asked:g}" for check in checks)
    return f"After, on other prompts: {said}." if checks else ""


def _calibration_alt(before: DialCalibration) -> str:
    low, high = before.attainable
    points = ", ".join(f"{point.score:z.2f} at {point.control:g}" for point in before.points)
    return f"Attainable from {low:z.2f} to {high:z.2f}. Before, read by {before.judge}: {points}."


def _plane_alt(mode: str, judge: str, points: Sequence[PlanePoint]) -> str:
    """Where the settings led, in a sentence; the page has every number in a table."""
    led = [
        (point.asked, point.safety.value, point.helpfulness.value)
        for point in points
        if point.safety and point.helpfulness
    ]
    misses = [hypot(safety - asked.safety, helpful - asked.helpfulness) for asked, safety, helpful in led]
    largest = max(misses)
    asked, safety, helpful = led[misses.index(largest)]
    nowhere = f" No answer of {len(points) - len(led)} settings could be judged." if len(led) < len(points) else ""
    return (
        f"{len(points)} settings asked of mode {mode} and where they led on the plane of safety and helpfulness, as "
        f"{judge} reads it. Mean distance {sum(misses) / len(misses):.2f}; largest {largest:.2f}, asked "
        f"safety {asked.safety:g} and helpfulness {asked.helpfulness:g}, reached {safety:z.2f} and {helpful:z.2f}."
        f"{nowhere}"
    )


def _loss_alt(losses: Losses) -> str:
    (first, start), (last, end) = losses[0], losses[-1]
    return f"Training loss: {start:.3f} at step {first}, {end:.3f} at step {last}."


def _file(*parts: str) -> str:
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts) + ".png"


def _with_unique_names(plates: Iterable[Plate]) -> Iterator[Plate]:
    """Numbers the later ones of names that differ in signs alone, as of judges "a/b" and "a-b"."""
    taken: set[str] = set()
    for plate in plates:
        stem, number, file = plate.file.removesuffix(".png"), 1, plate.file
        while file in taken:
            number += 1
            file = f"{stem}-{number}.png"
        taken.add(file)
        yield replace(plate, file=file)
