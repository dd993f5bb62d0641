"""The page: one file that needs no other, no network and no script."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rheostat_server.contract.dials import DialName
from rheostat_training.evaluate import FIGURE_NAMES
from rheostat_training.report import findings
from rheostat_training.report.facts import DIALS_SHOWN, JudgeRole, RunFacts
from rheostat_training.report.markdown import HEADINGS
from rheostat_training.report.plates import Plate

TEMPLATES: Final = Path(__file__).parent / "templates"
ROLE_WORDS: Final[dict[JudgeRole, str]] = {
    "training": "Optimisation: the scorers that made the data",
    "held-out": "Generalisation: a judge that no training saw",
    "oracle": "Oracle: the truth of the demo world",
}


def render_page(facts: RunFacts, plates: Sequence[Plate]) -> str:
    """The report as HTML. Whatever the facts hold is text there, never markup."""
    page = environment().get_template("report.html.jinja")
    return page.render(
        facts=facts,
        headline=findings.headline(facts),
        key_rows=findings.key_rows(facts),
        comparisons=list(findings.comparisons(facts)),
        roles=[(role, words, judges) for role, words in ROLE_WORDS.items() if (judges := facts.judges_of(role))],
        gaps=_gaps(facts),
        plates={section: [plate for plate in plates if plate.section == section] for section in _SECTIONS},
        calibration_rows=_calibration_rows(facts),
        dials=DIALS_SHOWN,
        figure_names=FIGURE_NAMES,
        key_names=findings.KEY_FIGURES,
        compared=findings.COMPARED,
        headings=HEADINGS,
    )


_SECTIONS: Final = ("response", "plane", "calibration", "loss")


def environment(*folders: Path) -> Environment:
    """Finds templates in `folders`, which may include ours, and here; whatever they are given is text."""
    made = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "setting": setting, "duration": duration, "data_uri": data_uri}
    return made


def number(value: float) -> str:
    """Three decimals, and no minus before a zero."""
    return f"{value:z.3f}"


def setting(value: object) -> str:
    """A setting's value: text as it is, numbers without noise, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)


def duration(seconds: float) -> str:
    """Seconds up to a minute, then minutes, then hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"


def _gaps(facts: RunFacts) -> Mapping[tuple[str, DialName], float]:
    """By mode and dial, where both kinds of judge have read the answers."""
    return {
        (mode, dial): found
        for mode in facts.mode_names
        for dial in DIALS_SHOWN
        if (found := findings.gap(facts, mode, dial)) is not None
    }


def _calibration_rows(facts: RunFacts) -> list[dict[str, Any]]:
    """By mode and dial: the curve, and the largest miss within its range before and after; None where not measured."""
    rows: list[dict[str, Any]] = []
    for mode, curves in (facts.calibration or {}).items():
        misses = facts.checked[mode].misses() if mode in facts.checked else {}
        rows += [
            {"mode": mode, "dial": dial, "curve": curves[dial], "miss": misses.get(dial)}
            for dial in DIALS_SHOWN
            if dial in curves
        ]
    return rows
