"""The dials in Chromium: the point is moved by mouse, sliders and keys, and the caller's envelope is drawn."""

import json
import re

from playwright.sync_api import expect

from tests.playground.browser import REFUSED_LOAD
from tests.playground.conftest import Visiting
from tests.playground.servers import NARROW_KEY, STRICT_KEY, THIRDS_KEY


def test_the_point_is_dragged(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    expect(page.by("point-told")).to_have_text("0.75 / 0.75")
    page.drag_to(safety=0.2, helpfulness=0.9)
    told = page.by("point-told").inner_text()
    safety, helpfulness = (float(value) for value in told.split(" / "))
    assert abs(safety - 0.2) <= 0.02
    assert abs(helpfulness - 0.9) <= 0.02
    assert page.by("safety").input_value() == f"{safety:g}"


def test_the_point_stays_on_the_plane(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.drag_to(safety=1.4, helpfulness=-0.2)
    expect(page.by("point-told")).to_have_text("1.00 / 0.00")


def test_sliders_move_it(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.set_dial("safety", 0.31)
    page.by("helpfulness").press("ArrowRight")
    expect(page.by("point-told")).to_have_text("0.31 / 0.76")
    expect(page.by("knob")).to_have_attribute("aria-valuetext", "safety 0.31, helpfulness 0.76")


def test_keys_move_it(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    knob = page.by("knob")
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft", "Shift+ArrowDown", "Shift+ArrowRight"):
        knob.press(key)
    expect(page.by("point-told")).to_have_text("0.79 / 0.66")
    knob.press("Home")
    expect(page.by("point-told")).to_have_text("0.75 / 0.75")


def test_a_preset_sets_the_point_until_it_is_moved(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("preset").select_option("strict")
    expect(page.by("point-told")).to_have_text("1.00 / 0.50")
    page.by("knob").press("ArrowDown")
    expect(page.by("preset")).to_have_value("")


def test_a_preset_out_of_reach_is_drawn_where_it_is_asked_for(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(STRICT_KEY)
    page.by("preset").select_option("open")
    expect(page.by("point-told")).to_have_text("0.25 / 1.00")
    page.by("mode").select_option("prompt")
    expect(page.by("point-told")).to_have_text("0.25 / 1.00")
    page.by("preset").select_option("")
    expect(page.by("point-told")).to_have_text("0.90 / 1.00")


def test_dials_that_were_set_stay_with_another_key_as_far_as_it_lets_them(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(NARROW_KEY)
    page.set_dial("safety", 0.65)
    page.set_dial("helpfulness", 0.3)
    page.by("key-button").click()
    page.give_key(THIRDS_KEY)
    expect(page.by("envelope-told")).to_contain_text("0.33 to 0.67")
    expect(page.by("point-told")).to_have_text("0.65 / 0.33")


def test_dials_that_nobody_set_are_the_defaults_of_another_key(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(NARROW_KEY)
    page.by("key-button").click()
    page.give_key(THIRDS_KEY)
    expect(page.by("point-told")).to_have_text("0.50 / 0.50")


def test_dials_and_fields_wait_for_what_the_caller_may_set(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.page.goto(narrow_url)
    expect(page.by("key-dialog")).to_be_visible()
    fields = [page.by(id) for id in ("safety", "helpfulness", "preset", "mode", "model", "max-tokens", "run")]
    for field in fields:
        expect(field).to_be_disabled()
    page.give_key(NARROW_KEY)
    for field in fields:
        expect(field).to_be_enabled()


def test_nought_in_a_field_is_sent_as_it_is(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.expected.append(REFUSED_LOAD)
    page.by("mode").select_option("rerank")
    page.by("candidates").fill("0")
    page.by("max-tokens").fill("0")
    with page.page.expect_request("**/chat/completions") as sent:
        page.by("run").click()
    body = json.loads(sent.value.post_data or "")
    assert (body["control"]["candidates"], body["max_tokens"]) == (0, 0)
    expect(page.page.locator("#answer .problem")).to_contain_text("status422")


def test_the_callers_envelope_is_drawn_and_told(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(NARROW_KEY)
    expect(page.by("envelope-told")).to_contain_text("safety 0.60 to 0.90, helpfulness 0.00 to 0.50")
    box = [float(page.by("envelope").get_attribute(name) or "nan") for name in ("x", "y", "width", "height")]
    assert [round(value, 6) for value in box] == [0, 10, 50, 30]
    expect(page.by("point-told")).to_have_text("0.80 / 0.25")
    expect(page.by("ghost")).to_be_hidden()
    page.drag_to(safety=0.1, helpfulness=0.9)
    expect(page.by("ghost")).to_be_visible()
    expect(page.by("knob")).to_have_attribute(
        "aria-valuetext", re.compile("in force would be safety 0.60, helpfulness 0.50")
    )
    assert page.by("mode").locator("option").all_inner_texts() == ["adapter", "adapter+rerank"]


def test_a_locked_dial_and_an_envelope_that_rejects_hold_the_point(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(STRICT_KEY)
    expect(page.by("safety")).to_be_disabled()
    expect(page.by("envelope-told")).to_contain_text("safety locked at 0.90")
    page.drag_to(safety=0.1, helpfulness=0.1)
    expect(page.by("point-told")).to_have_text("0.90 / 0.50")


def test_fields_are_there_where_they_go_with_the_mode(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    shown = {}
    for mode in ("auto", "prompt", "adapter", "off", "rerank", "adapter+rerank"):
        page.by("mode").select_option(mode)
        shown[mode] = (page.by("adapter-field").is_visible(), page.by("candidates-field").is_visible())
    assert shown == {
        "auto": (True, False),
        "prompt": (False, False),
        "adapter": (True, False),
        "off": (False, False),
        "rerank": (False, True),
        "adapter+rerank": (True, True),
    }
    assert page.by("model").locator("option").all_inner_texts() == ["demo"]


def test_a_blend_is_chosen_where_an_adapter_would_be(visit: Visiting, blend_url: str) -> None:
    page = visit(blend_url).open()
    offered = {}
    for mode in ("auto", "prompt", "blend"):
        page.by("mode").select_option(mode)
        shown = page.by("adapter-field").is_visible()
        offered[mode] = page.by("adapter").locator("option").all_inner_texts() if shown else None
    assert offered == {"auto": ["default", "tiny-blend"], "prompt": None, "blend": ["default", "tiny-blend"]}
    expect(page.by("adapter-label")).to_have_text("Blend")
    page.by("adapter").select_option("tiny-blend")
    expect(page.run()).to_contain_text("tiny-blend@")
