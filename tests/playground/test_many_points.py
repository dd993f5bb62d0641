"""Several points in Chromium: side by side, and the whole plane as a heat map."""

import re

from playwright.sync_api import expect

from tests.playground.browser import REFUSED_LOAD, Visit
from tests.playground.conftest import Visiting
from tests.playground.servers import NARROW_KEY, STRICT_KEY, THIRDS_KEY
from tests.playground.upstream import Script


def swept(page: Visit, points: int) -> None:
    page.by("run-sweep").click()
    expect(page.by("sweep-status")).to_have_text(f"{points} of {points} points, done.", timeout=60_000)


def test_one_prompt_is_answered_at_several_points_side_by_side(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("tab-compare").click()
    expect(page.by("run-all")).to_be_disabled()
    page.by("add-point").click()
    page.drag_to(safety=0.1, helpfulness=0.1)
    page.by("mode").select_option("prompt")
    page.by("add-point").click()
    page.by("add-presets").click()
    cards = page.page.locator(".compared-point")
    expect(cards).to_have_count(5)
    expect(page.page.locator(".pin")).to_have_count(5)
    page.page.get_by_role("button", name="Remove point 4").click()
    page.by("run-all").click()
    expect(page.by("compare-status")).to_have_text("Answered at 4 points.", timeout=60_000)
    expect(page.page.locator(".compared-answer .said:not(:empty)")).to_have_count(4)
    modes = [
        re.search(r"mode\n?(\w+)", text) for text in page.page.locator(".compared .receipt .facts").all_inner_texts()
    ]
    assert [found[1] for found in modes if found] == ["adapter", "prompt", "prompt", "prompt"]
    expect(cards.last.locator("h3")).to_have_text("Safety 0.25, helpfulness 1.00")
    expect(cards.last.locator(".hint").first).to_have_text("open · demo · mode prompt")


def test_a_caller_with_one_place_gets_its_points_one_after_another(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(STRICT_KEY)
    page.by("tab-compare").click()
    for _ in range(3):
        page.by("add-point").click()
    page.by("run-all").click()
    expect(page.by("compare-status")).to_have_text("Answered at 3 points.", timeout=60_000)
    expect(page.page.locator(".compared-answer .receipt")).to_have_count(3)


def test_points_that_failed_are_told_and_the_others_answered(
    visit: Visiting, script: Script, scripted_url: str
) -> None:
    script.says("A plain answer.", fails=2)
    page = visit(scripted_url).open()
    page.expected.append(REFUSED_LOAD)
    page.by("tab-compare").click()
    for _ in range(5):
        page.by("add-point").click()
    page.by("run-all").click()
    expect(page.by("compare-status")).to_have_text("Answered at 3 of 5 points; 2 failed.")
    expect(page.page.locator(".compared-answer .problem")).to_have_count(2)
    script.says("A plain answer.", fails=2)
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    page.by("run-sweep").click()
    expect(page.by("sweep-status")).to_have_text("9 of 9 points, done; 2 failed.")
    failed = page.page.locator(".heat-cell.failed")
    assert failed.all_inner_texts() == ["!", "!"]
    failed.first.click()
    expect(page.page.locator(".heat-detail .problem")).to_be_visible()


def test_a_point_that_was_removed_meanwhile_is_not_asked_for(
    visit: Visiting, script: Script, scripted_url: str
) -> None:
    script.says("Begun. ", stays=True)
    page = visit(scripted_url).open()
    page.by("tab-compare").click()
    for _ in range(4):
        page.by("add-point").click()
    page.by("run-all").click()
    expect(page.page.locator(".compared-answer .said:not(:empty)")).to_have_count(3)
    page.page.get_by_role("button", name="Remove point 4").click()
    script.let_go.set()
    expect(page.by("compare-status")).to_have_text("Answered at 3 points.")
    assert len(script.asked) == 3


def test_a_reload_that_fails_meanwhile_leaves_a_comparison_whole(
    visit: Visiting, script: Script, scripted_url: str
) -> None:
    script.says("Begun. ", stays=True)
    page = visit(scripted_url).open()
    page.expected.append(REFUSED_LOAD)
    page.by("tab-compare").click()
    for _ in range(4):
        page.by("add-point").click()
    page.by("run-all").click()
    expect(page.page.locator(".compared-answer .said:not(:empty)")).to_have_count(3)
    page.page.route("**/v1/control", lambda route: route.fulfill(status=503, body="no room"))
    page.by("key-button").click()
    page.give_key("another-key")
    expect(page.by("notice")).to_contain_text("no room")
    script.let_go.set()
    expect(page.by("compare-status")).to_have_text("Answered at 4 points.")
    expect(page.page.locator(".compared-answer .receipt")).to_have_count(4)
    expect(page.by("stop-all")).to_be_hidden()


def test_a_sweep_fills_the_plane_with_measured_levels(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    swept(page, 9)
    cells = page.page.locator(".heat-cell")
    assert [0 <= float(text) <= 1 for text in cells.all_inner_texts()] == [True] * 9
    fills = cells.evaluate_all("cells => cells.map((cell) => getComputedStyle(cell).backgroundColor)")
    assert len(set(fills)) > 3
    first = cells.first
    expect(first).to_have_attribute("aria-label", re.compile("Safety 1.00, helpfulness 0.00: measured helpfulness"))
    helpfulness = float(first.inner_text())
    page.by("sweep-measure").select_option("safety")
    expect(first).to_have_attribute("aria-label", re.compile("measured safety"))
    safety = float(first.inner_text())
    page.by("sweep-measure").select_option("distance")
    expect(page.page.locator(".heat-legend")).to_contain_text("distance from the dials")
    assert abs(float(first.inner_text()) - ((1 - safety) + helpfulness)) <= 0.011


def test_the_map_is_read_by_pointer_and_by_keys(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    swept(page, 9)
    detail = page.page.locator(".heat-detail")
    page.page.get_by_role("gridcell", name=re.compile("^Safety 0.50, helpfulness 1.00")).hover()
    expect(detail.locator("h3")).to_have_text("Safety 0.50, helpfulness 1.00")
    expect(detail.locator(".said")).not_to_be_empty()
    start = page.page.get_by_role("gridcell", name=re.compile("^Safety 0.00, helpfulness 0.00"))
    start.focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowRight"):
        page.page.keyboard.press(key)
    expect(detail.locator("h3")).to_have_text("Safety 1.00, helpfulness 0.50")
    assert page.page.locator(".heat-cell[tabindex='0']").count() == 1


def test_a_cell_that_was_clicked_keeps_its_answer_beside_the_map(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    swept(page, 9)
    kept = page.page.get_by_role("gridcell", name=re.compile("^Safety 0.50, helpfulness 0.00"))
    other = page.page.get_by_role("gridcell", name=re.compile("^Safety 0.50, helpfulness 1.00"))
    head = page.page.locator(".heat-detail h3")
    kept.click()
    other.hover()
    expect(head).to_have_text("Safety 0.50, helpfulness 0.00")
    page.by("sweep-measure").select_option("safety")
    expect(kept).to_have_class(re.compile(r"\btold\b"))
    kept.press("Escape")
    page.page.mouse.move(0, 0)
    other.hover()
    expect(head).to_have_text("Safety 0.50, helpfulness 1.00")


def test_a_sweep_is_said_at_its_quarters_alone(visit: Visiting, script: Script, scripted_url: str) -> None:
    script.says("A plain answer.")
    page = visit(scripted_url).open()
    page.by("tab-sweep").click()
    swept(page, 25)
    assert page.by("spoken").locator("p").all_inner_texts() == [
        "0 of 25 points…", "7 of 25 points…", "13 of 25 points…", "19 of 25 points…", "25 of 25 points, done.",
    ]  # fmt: skip
    assert page.by("sweep-status").get_attribute("role") is None


# Numbers that are shown and wider than their cell, or broken in two.
CUT = """(spans) => spans.filter((span) => span.textContent && span.getClientRects().length).filter((span) => {
  const room = span.closest(".heat-cell")?.clientWidth ?? Infinity;
  return span.offsetWidth > room || span.getBoundingClientRect().width > room || span.offsetHeight > 24;
}).map((span) => span.outerHTML)"""
# Whether any two neighbours touch.
TOUCH = """(feet) => feet.map((foot) => foot.getBoundingClientRect()).filter((box) => box.width)
  .some((box, place, all) => place > 0 && box.left < all[place - 1].right)"""


def test_every_number_of_a_large_map_is_whole_or_not_there(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("max-tokens").fill("2")
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("11")
    swept(page, 121)
    cells = page.page.locator(".heat-cell")
    expect(cells.first).to_have_attribute("aria-label", re.compile(r"helpfulness \d\.\d\d$"))
    for width, shown in ((360, 0), (768, 121), (1280, 121)):
        page.page.set_viewport_size({"width": width, "height": 900})
        assert page.page.locator(".heat-cell > span, .heat-level, .heat-foot > span > span").evaluate_all(CUT) == []
        assert page.page.locator(".heat-foot > span > span").evaluate_all(TOUCH) is False
        assert page.page.locator(".heat-cell > span:visible").count() == shown


def test_the_map_is_read_by_tapping(visit: Visiting, open_url: str) -> None:
    page = visit(open_url, has_touch=True, viewport={"width": 360, "height": 740}).open()
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    swept(page, 9)
    page.page.get_by_role("gridcell", name=re.compile("^Safety 0.50, helpfulness 0.50")).tap()
    expect(page.page.locator(".heat-detail h3")).to_have_text("Safety 0.50, helpfulness 0.50")


def test_the_map_is_a_table_too(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    swept(page, 9)
    page.page.get_by_text("As a table", exact=True).click()
    rows = page.page.locator(".heat-table tbody tr")
    expect(rows).to_have_count(9)
    numbers = rows.last.locator("td").all_inner_texts()
    assert numbers[:2] == ["1.00", "1.00"]
    safety, helpfulness, apart = (float(number) for number in numbers[2:5])
    assert abs(apart - (1 - safety) - (1 - helpfulness)) <= 0.011
    assert numbers[5]


def test_a_sweep_spans_the_envelope_or_beyond(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(NARROW_KEY)
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    swept(page, 9)
    levels = (
        page.page.locator(".heat-level").all_inner_texts(),
        page.page.locator(".heat-foot > span").all_inner_texts(),
    )
    assert levels == (["0.90", "0.75", "0.60"], ["", "0.00", "0.25", "0.50"])
    expect(page.page.locator(".clamped-cell")).to_have_count(0)
    page.by("whole-plane").check()
    swept(page, 9)
    expect(page.page.locator(".clamped-cell")).to_have_count(9)


def test_a_sweep_stays_within_an_envelope_of_odd_bounds(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(THIRDS_KEY)
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    swept(page, 9)
    expect(page.page.locator(".heat-cell.failed")).to_have_count(0)


def test_a_server_without_scorers_shows_the_answers(visit: Visiting, script: Script, scripted_url: str) -> None:
    script.says("A plain answer.")
    page = visit(scripted_url).open()
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    swept(page, 9)
    expect(page.page.locator(".heat-unmeasured")).to_contain_text("This server has no scorers")
    assert page.page.locator(".heat-cell").all_inner_texts() == ["A plain answer."] * 9
    expect(page.by("sweep-measure")).to_be_disabled()


def test_a_sweep_can_be_stopped(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("11")
    page.by("run-sweep").click()
    expect(page.page.locator(".heat-cell:not(.waiting)")).not_to_have_count(0, timeout=30_000)
    page.by("stop-sweep").click()
    expect(page.by("sweep-status")).to_have_text("Stopped.")
    expect(page.by("spoken")).to_contain_text("Stopped.")
    assert page.page.locator(".heat-cell.waiting").count() > 0
    expect(page.by("run-sweep")).to_be_enabled()
