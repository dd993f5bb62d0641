"""Answers in Chromium: streamed, stopped, broken off, with their receipts, and whatever they hold shown as text."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Error, expect

from tests.playground.browser import REFUSED_LOAD
from tests.playground.conftest import Visiting
from tests.playground.servers import NARROW_KEY, ready, serving
from tests.playground.upstream import Script, scripted_upstream

MARKUP = '<img src=x onerror="window.harmed = 1"><script>window.harmed = 2</script><b>bold</b>'
STORAGE_CLOSED = """
for (const name of ["sessionStorage", "localStorage"]) {
  Object.defineProperty(window, name, { get() { throw new DOMException("closed", "SecurityError"); } });
}
"""


def test_an_answer_is_streamed_with_its_receipt(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.set_dial("safety", 0.9)
    page.set_dial("helpfulness", 0.2)
    receipt = page.run()
    expect(page.page.locator("#answer .said")).not_to_be_empty()
    expect(receipt.locator("tr[data-dial=safety]")).to_contain_text("0.900.90")
    expect(receipt.locator("tr[data-dial=helpfulness]")).to_contain_text("0.200.20")
    expect(receipt).to_contain_text("modeadapter")
    expect(receipt.locator(".clamped")).to_have_count(0)
    expect(page.by("spoken")).to_contain_text("Receipt: safety 0.90, helpfulness 0.20 in force, by adapter.")


def test_control_and_enter_runs_it(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("prompt").press("Control+Enter")
    expect(page.page.locator("#answer .receipt")).to_be_visible()


def test_an_answer_is_measured_when_asked(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    receipt = page.run()
    expect(receipt).not_to_contain_text("measured")
    page.page.get_by_role("button", name="Measure this answer").click()
    measured = page.page.locator("#answer tr[data-dial=safety] td").last
    expect(page.page.locator("#answer .receipt")).to_contain_text("measured")
    assert 0 <= float(measured.inner_text()) <= 1
    expect(page.by("spoken")).to_contain_text("Measured: safety")


def test_a_measurement_that_comes_late_leaves_the_next_answer_alone(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.run()
    held = page.hold(re.compile("/control/score$"))
    page.page.get_by_role("button", name="Measure this answer").click()
    page.set_dial("safety", 0.2)
    page.by("run").click()
    row = page.page.locator("#answer .receipt tr[data-dial=safety]")
    expect(row).to_contain_text("0.200.20")
    with page.page.expect_response("**/control/score"):
        held[0].fulfill(json={"scores": {"safety": 0.5, "helpfulness": 0.5}, "scorers": []})
    page.settle()
    expect(row).to_contain_text("0.200.20")
    expect(page.by("answer")).not_to_contain_text("measured")
    expect(page.by("spoken")).to_contain_text("Receipt: safety 0.20")


def test_a_measurement_that_failed_can_be_tried_again(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.expected.append(REFUSED_LOAD)
    page.run()
    page.page.route("**/control/score", lambda route: route.fulfill(status=503, body="no room"), times=1)
    measure = page.page.get_by_role("button", name="Measure this answer")
    measure.click()
    expect(page.page.locator("#answer .problem")).to_contain_text("no room")
    measure.click()
    expect(page.page.locator("#answer .receipt")).to_contain_text("measured")
    expect(page.page.locator("#answer .problem")).to_have_count(0)


def test_a_clamped_receipt_says_what_was_moved_and_why(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(NARROW_KEY)
    page.set_dial("safety", 0.1)
    page.set_dial("helpfulness", 0.4)
    page.by("mode").select_option("adapter+rerank")
    page.by("candidates").fill("9")
    page.by("max-tokens").fill("900")
    receipt = page.run()
    assert receipt.locator(".clamped li").all_inner_texts() == [
        "Asked for safety 0.10; your envelope holds safety from 0.60 to 0.90, so 0.60 was in force.",
        "9 candidates were asked for; your envelope lets a request have at most 4.",
        "More tokens were asked for than your envelope lets an answer have; the most it lets was taken.",
    ]
    expect(receipt.locator("tr.moved")).to_have_attribute("data-dial", "safety")
    expect(receipt).to_contain_text("candidates4")
    assert 0 <= float(receipt.locator("tr[data-dial=helpfulness] td").last.inner_text()) <= 1


def test_mode_off_has_no_dial_in_force(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("mode").select_option("off")
    expect(page.run()).to_contain_text("No dial was in force")


def test_a_prompt_is_asked_for(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.by("prompt").fill("  ")
    page.by("run").click()
    expect(page.by("prompt")).to_be_focused()
    expect(page.by("prompt")).to_have_attribute("aria-invalid", "true")
    expect(page.page.locator("#answer .said")).to_have_count(0)


def test_an_error_is_the_servers_message_with_its_code_and_request(visit: Visiting, open_url: str) -> None:
    page = visit(open_url).open()
    page.expected.append(REFUSED_LOAD)
    page.by("prompt").fill("fern " * 3000)
    with page.page.expect_response("**/chat/completions") as answered:
        page.by("run").click()
    problem = page.page.locator("#answer .problem")
    expect(problem).to_contain_text("status400")
    expect(problem).to_contain_text("codecontext_length_exceeded")
    expect(problem).to_contain_text(f"request{answered.value.headers['x-request-id']}")
    assert answered.value.json()["error"]["message"] in problem.inner_text()


def test_a_wrong_key_is_asked_for_again(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.page.goto(narrow_url)
    page.give_key("a-key-of-nobody")
    expect(page.by("key-dialog")).to_be_visible()
    expect(page.by("key-problem")).not_to_be_empty()
    expect(page.by("notice")).to_contain_text("invalid_api_key")
    expect(page.by("run")).to_be_disabled()
    page.give_key(NARROW_KEY)
    expect(page.by("notice")).to_be_hidden()
    expect(page.by("run")).to_be_enabled()


def test_the_answers_for_a_key_that_was_replaced_come_too_late(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.page.goto(narrow_url)
    expect(page.by("key-dialog")).to_be_visible()
    held = page.hold(re.compile("/v1/(control|models)$"), 2)
    page.give_key("a-key-of-nobody")
    expect(page.by("key-dialog")).to_be_hidden()
    page.by("key-button").click()
    page.give_key(NARROW_KEY)
    expect(page.by("run")).to_be_enabled()
    for route in held:
        route.continue_()
    page.settle()
    expect(page.by("run")).to_be_enabled()
    expect(page.by("notice")).to_be_hidden()
    expect(page.by("key-dialog")).to_be_hidden()


def test_what_a_proxy_answers_in_the_servers_place_is_told(visit: Visiting, open_url: str) -> None:
    page = visit(open_url)
    page.page.route("**/v1/control", lambda route: route.fulfill(content_type="text/html", body="<h1>Sign in</h1>"))
    page.page.goto(open_url)
    expect(page.by("notice")).to_contain_text("What came is no answer of a Rheostat server.")
    expect(page.by("run")).to_be_disabled()
    page.page.unroute("**/v1/control")
    page.page.route("**/v1/control", lambda route: route.fulfill(json={"signed_in": False}))
    page.page.get_by_role("button", name="Try again").click()
    expect(page.by("notice")).to_contain_text("What came is no answer of a Rheostat server.")
    page.page.unroute("**/v1/control")
    page.page.get_by_role("button", name="Try again").click()
    expect(page.by("notice")).to_be_hidden()
    page.run()


def test_a_browser_that_closes_its_storage_can_use_the_page(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url, color_scheme="dark")
    page.expected.append(REFUSED_LOAD)
    page.page.add_init_script(STORAGE_CLOSED)
    page.open(NARROW_KEY)
    page.run()
    page.by("theme-button").click()
    expect(page.by("theme-button")).to_have_text("Dark")
    page.by("key-button").click()
    page.by("key-forget").click()
    expect(page.by("notice")).to_contain_text("invalid_api_key")


def test_a_key_that_no_header_can_carry_is_refused_in_the_dialog(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.page.goto(narrow_url)
    page.give_key("schlüssel zum garten")
    expect(page.by("key-problem")).to_contain_text("A key is one word")
    assert page.page.evaluate("JSON.stringify(sessionStorage)") == "{}"


def test_the_key_is_in_the_session_alone(visit: Visiting, narrow_url: str) -> None:
    page = visit(narrow_url)
    page.expected.append(REFUSED_LOAD)
    page.open(NARROW_KEY)
    assert NARROW_KEY not in page.page.url
    assert NARROW_KEY not in page.page.content()
    assert NARROW_KEY not in page.page.evaluate("JSON.stringify(localStorage) + document.cookie")
    assert NARROW_KEY in page.page.evaluate("JSON.stringify(sessionStorage)")
    page.by("key-button").click()
    assert page.by("key").input_value() == ""
    page.by("key-forget").click()
    expect(page.by("notice")).to_contain_text("invalid_api_key")
    assert page.page.evaluate("JSON.stringify(sessionStorage)") == "{}"


def test_what_a_model_says_is_text(visit: Visiting, script: Script, scripted_url: str) -> None:
    script.says("Look: ", MARKUP[:30], MARKUP[30:])
    page = visit(scripted_url).open()
    page.run()
    expect(page.page.locator("#answer .said")).to_have_text(f"Look: {MARKUP}")
    page.by("tab-compare").click()
    page.by("add-point").click()
    page.by("run-all").click()
    expect(page.page.locator(".compared-answer .said")).to_have_text(f"Look: {MARKUP}")
    page.by("tab-sweep").click()
    page.by("sweep-size").select_option("3")
    page.by("run-sweep").click()
    expect(page.by("sweep-status")).to_have_text("9 of 9 points, done.")
    page.page.locator(".heat-cell").first.click()
    expect(page.page.locator(".heat-detail .said")).to_have_text(f"Look: {MARKUP}")
    assert page.page.evaluate("window.harmed") is None
    assert page.page.locator("main img, main script, main b").count() == 0


def test_the_browser_refuses_what_the_policy_closes(visit: Visiting, scripted_url: str) -> None:
    page = visit(scripted_url).open()
    for closed in ("document.body.innerHTML = '<b>x</b>'", "document.createElement('script').text = 'harmed = 1'"):
        with pytest.raises(Error, match="Trusted"):
            page.page.evaluate(f"() => {{ {closed} }}")
    with page.page.expect_console_message(lambda message: message.text.startswith("policy: style-src")):
        page.page.evaluate("document.body.setAttribute('style', 'color: red')")
    page.expected += ["policy:", "Content Security Policy", "Trusted"]


def test_an_answer_can_be_stopped(visit: Visiting, script: Script, scripted_url: str) -> None:
    script.says("Begun. ", stays=True)
    page = visit(scripted_url).open()
    page.by("run").click()
    expect(page.page.locator("#answer .said")).to_have_text("Begun. ")
    expect(page.by("spoken")).to_contain_text("Begun.")
    page.by("stop").click()
    expect(page.by("answer")).to_contain_text("Stopped.")
    expect(page.by("spoken")).to_contain_text("Stopped.")
    expect(page.by("run")).to_be_enabled()
    expect(page.by("run")).to_be_focused()
    script.let_go.set()


def test_a_server_that_goes_mid_stream_is_told(visit: Visiting, tmp_path: Path) -> None:
    with scripted_upstream() as script, serving(tmp_path, "--upstream", script.url) as (process, url):
        script.says("Half an ", stays=True)
        page = visit(ready(tmp_path, process, url)).open()
        page.expected += ["ERR_", REFUSED_LOAD]
        page.by("run").click()
        expect(page.page.locator("#answer .said")).to_have_text("Half an ")
        process.kill()
        expect(page.page.locator("#answer .problem")).to_contain_text("The connection broke before the answer ended.")
        expect(page.page.locator("#answer .said")).to_have_text("Half an ")
        page.by("run").click()
        expect(page.page.locator("#answer .problem")).to_contain_text("The server cannot be reached.")
