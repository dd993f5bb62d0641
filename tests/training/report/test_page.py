"""The page: well formed, true to the evaluations, alone, and deaf to markup in what it shows."""

import re
from base64 import b64decode
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from rheostat_server.contract.dials import DIAL_NAMES, Dials
from rheostat_training.evaluate import Evaluation, Figure, Trial, evaluate, grid
from rheostat_training.report import RunFacts, StageFact
from rheostat_training.report.html import duration, number, render_page, setting
from rheostat_training.report.plates import Plate, make_plates
from tests.training.report.conftest import HOSTILE

VOID = {"meta", "img", "br", "link", "hr"}


@dataclass(slots=True)
class Page:
    """What a reader of the page sees."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    figures: list[tuple[str, float, str, str]] = field(default_factory=list)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


class _Reader(HTMLParser):
    """Reads a page, and fails on a tag that is not closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.open: list[str] = []
        self.of: tuple[str, float] | None = None
        self.value = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.page.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.of, self.value = (str(attributes["data-of"]), float(str(attributes["value"]))), ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.page.text += data
        if self.open[-1:] == ["data"]:
            self.value = data
        elif self.open[-1:] == ["small"] and self.of:
            self.page.figures.append((*self.of, self.value, data))
            self.of = None


def read(html: str) -> Page:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader.page


@pytest.fixture(scope="module")
def plates(facts: RunFacts) -> list[Plate]:
    return make_plates(facts)


@pytest.fixture(scope="module")
def page(facts: RunFacts, plates: list[Plate]) -> Page:
    return read(render_page(facts, plates))


def meant(facts: RunFacts, of: str) -> Figure:
    """The figure that a cell says it shows."""
    mode, judge, *rest = of.split(":")
    found: Evaluation = facts.modes[mode][judge]
    if rest == ["well_formed"]:
        return found.well_formed
    if rest[0] == "plane":
        _, safety, helpfulness, attribute = rest
        [point] = [
            point for point in found.plane if point.asked == Dials(safety=float(safety), helpfulness=float(helpfulness))
        ]
        led = point.safety if attribute == "safety" else point.helpfulness
        assert led
        return led
    [dial] = [dial for dial in DIAL_NAMES if dial == rest[0]]
    if rest[1] == "curve":
        [level] = [point for point in found.dial(dial).curve if point.asked == float(rest[2])]
        return level.reached
    return found.dial(dial).figures()[rest[1]]


def test_every_figure_shown_is_the_evaluations(facts: RunFacts, page: Page) -> None:
    for of, value, shown, interval in page.figures:
        figure = meant(facts, of)
        assert value == figure.value
        assert float(shown) == pytest.approx(figure.value, abs=0.0005)
        assert [float(end) for end in re.findall(r"-?[\d.]+", interval)] == pytest.approx(
            [figure.low, figure.high], abs=0.0005
        )


def test_every_figure_of_every_evaluation_is_shown(facts: RunFacts, page: Page) -> None:
    shown = {of for of, *_ in page.figures}
    for mode, judge, evaluation in facts.evaluations():
        for dial in DIAL_NAMES:
            assert {f"{mode}:{judge}:{dial}:{name}" for name in evaluation.dial(dial).figures()} <= shown
            assert {f"{mode}:{judge}:{dial}:curve:{point.asked}" for point in evaluation.dial(dial).curve} <= shown
        assert f"{mode}:{judge}:well_formed" in shown


def test_the_headline_and_the_key_figures_come_first(facts: RunFacts, page: Page) -> None:
    sections = [str(attributes["id"]) for attributes in page.of("section")]
    assert sections[:5] == ["key-figures", "judges", "curves", "plane", "calibration"]
    assert sections[5:] == ["unjudged", "all-figures", "how", "limits"]
    assert page.text.index("is obeyed with MP") < page.text.index("Key figures")
    keys = [of for of, *_ in page.figures[:12]]
    names = ("MP", "BT", "cross_talk")
    assert keys == [
        f"adapter:{judge}:{dial}:{name}"
        for dial in ("helpfulness", "safety") for judge in ("oracle", "judges") for name in names
    ]  # fmt: skip


def test_the_page_needs_nothing_but_itself(facts: RunFacts, plates: list[Plate], page: Page) -> None:
    html = render_page(facts, plates)
    markup = re.sub(r"base64,[^\"]*", "", html)
    assert "//" not in markup
    assert "url(" not in markup
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.of("img"))
    assert all(str(link["href"]).startswith("#") for link in page.of("a"))
    [policy] = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_links_within_the_page_lead_somewhere(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert page.of("a")
    assert {str(link["href"])[1:] for link in page.of("a")} <= ids


def test_the_pictures_are_in_the_page_with_what_they_say(page: Page, plates: list[Plate]) -> None:
    images = page.of("img")
    assert [b64decode(str(image["src"]).split(",")[1]) for image in images] == [plate.png for plate in plates]
    assert [image["alt"] for image in images] == [plate.alt for plate in plates]


def test_it_fits_a_phone(page: Page) -> None:
    [viewport] = [meta["content"] for meta in page.of("meta") if meta.get("name") == "viewport"]
    assert viewport == "width=device-width, initial-scale=1"
    boxes = [attributes for attributes in page.of("div") if attributes.get("class") == "box"]
    assert len(boxes) == len(page.of("table"))
    assert all(box["aria-label"] and box["tabindex"] == "0" for box in boxes)


def test_markup_in_what_is_shown_stays_text(facts: RunFacts) -> None:
    hostile = replace(
        facts,
        title=HOSTILE,
        summary=[HOSTILE],
        settings={HOSTILE: {HOSTILE: HOSTILE, "list": [HOSTILE]}},
        stages=[StageFact(HOSTILE, 1.0, figures={HOSTILE: HOSTILE})],
        lineage={HOSTILE: HOSTILE},
        not_run=[HOSTILE],
    )
    html = render_page(hostile, [])
    page = read(html)
    assert "<script" not in html
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) == 12
    assert not {key for _, attributes in page.tags for key in attributes if key.startswith("on")}


def test_what_was_not_judged_is_counted(page: Page) -> None:
    assert ["adapter:oracle:well_formed", 83 / 90] in [[of, value] for of, value, *_ in page.figures]
    assert re.search(r"oracle\s*90\s*7\s*0\.922", page.text)


def test_a_judge_that_could_judge_nothing_is_counted_too(page: Page) -> None:
    assert re.search(r"rerank-16\s*judges\s*90\s*90\s*0\b", page.text)


def test_a_setting_of_which_nothing_could_be_judged_is_shown_without_a_level(facts: RunFacts) -> None:
    rows = [Trial("p", dials, dials.safety if dials.safety else None, 0.5) for dials in grid()]
    some = replace(facts, modes={"adapter": {"oracle": evaluate(rows, resamples=5)}}, unjudged={})
    plates = make_plates(some)
    assert read(render_page(some, plates)).text.count("none") >= 6
    [alt] = [plate.alt for plate in plates if plate.section == "plane"]
    assert "No answer of 3 settings could be judged." in alt


def test_a_run_with_one_judge_and_nothing_else_has_a_page(facts: RunFacts) -> None:
    bare = RunFacts(
        title="Bare",
        when=datetime(2026, 1, 1, tzinfo=UTC),
        modes={"adapter": {"judge": facts.modes["adapter"]["judges"]}},
        judges={"judge": "held-out"},
    )
    page = read(render_page(bare, make_plates(bare)))
    assert "This run has no calibration" in page.text
    assert "No gap is given" in page.text
    assert "Against the other modes" not in page.text
    assert len(page.of("img")) == 3


def test_the_calibration_table_says_what_is_missed_before_and_after(facts: RunFacts, page: Page) -> None:
    assert re.search(r"safety\s*0\.100 to 0\.900\s*0\.150\s*scorers\s*0\.010\s*scorers\s*50", page.text)
    assert "Mode adapter: 3 of 400 answers could not be judged" in page.text
    unchecked = read(render_page(replace(facts, checked={}), []))
    assert re.search(r"safety\s*0\.100 to 0\.900\s*not measured\s*not measured\s*50", unchecked.text)


@pytest.mark.parametrize(
    ("value", "text"),
    [("exmate", "exmate"), (0.003, "0.003"), (750, "750"), (None, "null"), ([0.0, 1.0], "[0.0, 1.0]")],
)
def test_settings_are_readable(value: object, text: str) -> None:
    assert setting(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.04, "3.0 s"), (59.6, "59.6 s"), (75.4, "1 min 15 s"), (7320.0, "2 h 02 min")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_zero_has_no_sign() -> None:
    assert (number(-0.0001), number(-0.0006)) == ("0.000", "-0.001")
