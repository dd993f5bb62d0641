"""axe finds nothing in the page, whatever it shows, in light, in dark and at 360 px; keys reach everything."""

import pytest
from playwright.sync_api import expect

from tests.playground.browser import REFUSED_LOAD, Visit
from tests.playground.conftest import Visiting
from tests.playground.servers import NARROW_KEY
from tests.playground.upstream import Script

LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
    "narrow dark": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
}


def faults(page: Visit) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="brings axe")
    found = axe.Axe().run(page.page).response["violations"]
    return [f"{fault['id']}: {node['html']} {node['failureSummary']}" for fault in found for node in fault["nodes"]]


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(visit: Visiting, narrow_url: str, look: str) -> None:
    page = visit(narrow_url, **LOOKS[look], bypass_csp=True)  # axe is put into the page as text
    page.expected.append(REFUSED_LOAD)
    page.page.goto(narrow_url)
    expect(page.by("key-dialog")).to_be_visible()
    assert faults(page) == []
    page.open(NARROW_KEY)
    page.set_dial("safety", 0.1)
    page.run()
    assert faults(page) == []
    page.by("tab-compare").click()
    page.by("add-presets").click()
    page.by("run-all").click()
    expect(page.by("compare-status")).to_have_text("Answered at 3 points.", timeout=60_000)
    assert faults(page) == []
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    page.by("run-sweep").click()
    expect(page.by("sweep-status")).to_have_text("9 of 9 points, done.", timeout=60_000)
    page.page.locator(".heat-cell").first.click()
    page.page.get_by_text("As a table", exact=True).click()
    assert faults(page) == []
    page.by("tab-code").click()
    assert faults(page) == []


def test_nothing_is_wider_than_the_window(visit: Visiting, open_url: str) -> None:
    page = visit(open_url, viewport={"width": 360, "height": 740}).open()
    page.run()
    page.by("tab-compare").click()
    page.by("add-presets").click()
    page.by("run-all").click()
    expect(page.by("compare-status")).to_have_text("Answered at 3 points.", timeout=60_000)
    page.by("tab-sweep").click()
    page.by("run-sweep").click()
    expect(page.by("sweep-status")).to_have_text("25 of 25 points, done.", timeout=60_000)
    page.page.locator(".heat-cell").first.click()
    page.page.get_by_text("As a table", exact=True).click()
    for tab in ("answer", "compare", "sweep", "code"):
        page.by(f"tab-{tab}").click()
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_keys_alone_reach_everything(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    wanted = {"knob", "safety", "helpfulness", "preset", "mode", "model", "adapter", "prompt", "system-summary", "run"}
    page.page.evaluate("document.querySelector('.composer summary').id = 'system-summary'")
    reached = set()
    for _ in range(40):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate("document.activeElement.id"))
    assert wanted | {"key-button", "theme-button", "max-tokens", "tab-answer"} <= reached


def test_tabs_are_chosen_by_arrow_keys(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("tab-answer").press("ArrowRight")
    expect(page.by("panel-compare")).to_be_visible()
    page.by("tab-compare").press("End")
    expect(page.by("panel-code")).to_be_visible()
    expect(page.by("tab-code")).to_be_focused()


def test_the_theme_is_the_systems_until_it_is_switched(visit: Visiting, open_url: str) -> None:
    page = visit(open_url, color_scheme="dark").open()
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.page.evaluate(ground)
    page.by("theme-button").click()
    light = page.page.evaluate(ground)
    assert light != dark
    page.page.reload()
    assert page.page.evaluate(ground) == light


@pytest.mark.parametrize("wanted", [True, False])
def test_nothing_moves_where_that_is_not_wanted(
    visit: Visiting, script: Script, scripted_url: str, wanted: bool
) -> None:
    """What moves is the mark at the end of an answer that still comes."""
    script.says("Begun. ", stays=True)
    page = visit(scripted_url, reduced_motion="no-preference" if wanted else "reduce").open()
    page.by("run").click()
    expect(page.page.locator("#answer .said")).to_have_text("Begun. ")
    assert page.page.evaluate("document.getAnimations().length > 0") is wanted
    script.let_go.set()
    expect(page.page.locator("#answer .receipt")).to_be_visible()


def test_the_focus_stays_with_what_was_pressed(visit: Visiting, script: Script, scripted_url: str) -> None:
    page = visit(scripted_url).open()
    page.by("tab-compare").click()
    page.by("add-point").click()
    for tab, run in (("answer", "run"), ("compare", "run-all"), ("sweep", "run-sweep")):
        script.says("Begun. ", stays=True)
        page.by(f"tab-{tab}").click()
        page.by(run).press("Enter")
        expect(page.by(run)).to_be_disabled()
        expect(page.by(run)).to_be_focused()
        page.by(run).press("Enter")
        script.let_go.set()
        expect(page.by(run)).to_be_enabled()
        expect(page.by(run)).to_be_focused()
        assert len(script.asked) == (25 if tab == "sweep" else 1)


def test_a_measurement_takes_the_focus_to_its_receipt(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.run()
    page.page.get_by_role("button", name="Measure this answer").press("Enter")
    receipt = page.page.locator("#answer .receipt")
    expect(receipt).to_contain_text("measured")
    expect(receipt).to_be_focused()


def test_numbers_that_a_slider_tells_are_not_said_twice(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    outputs = page.page.locator("output")
    assert outputs.evaluate_all("all => all.map((one) => one.getAttribute('aria-live'))") == ["off"] * 3
