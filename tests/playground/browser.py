"""A page in Chromium that keeps what went wrong: errors in its console, what its policy refused, requests elsewhere."""

import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Playwright,
    Request,
    Route,
    expect,
)

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
REFUSED_LOAD: Final = "Failed to load resource"
TELLS_VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} refused ${event.blockedURI} in ${event.sourceFile}`));
"""


@dataclass(slots=True)
class Visit:
    """A page on a server. `expected` are texts of problems that the test is about."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def by(self, id: str) -> Locator:
        return self.page.locator(f"#{id}")

    def open(self, key: str | None = None) -> "Visit":
        """The page, loaded and told its caller's envelope."""
        self.page.goto(self.url)
        if key:
            self.give_key(key)
        expect(self.by("envelope-told")).not_to_be_empty()
        return self

    def give_key(self, key: str) -> None:
        """Into the dialog, which the page has opened."""
        expect(self.by("key-dialog")).to_be_visible()
        self.by("key").fill(key)
        self.page.get_by_role("button", name="Use this key").click()

    def set_dial(self, name: str, value: float) -> None:
        self.by(name).fill(str(value))

    def drag_to(self, safety: float, helpfulness: float) -> None:
        """The point, by the mouse, in several moves."""
        self.by("plane").scroll_into_view_if_needed()
        plane, knob = self.by("plane").bounding_box(), self.by("knob").bounding_box()
        assert plane is not None
        assert knob is not None
        mouse = self.page.mouse
        mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
        mouse.down()
        mouse.move(plane["x"] + plane["width"] * helpfulness, plane["y"] + plane["height"] * (1 - safety), steps=5)
        mouse.up()

    def run(self) -> Locator:
        """The receipt of an answer."""
        self.by("run").click()
        receipt = self.page.locator("#answer .receipt")
        expect(receipt).to_be_visible(timeout=30_000)
        return receipt

    def hold(self, address: re.Pattern[str], number: int = 1) -> list[Route]:
        """The next requests to an address, each of which waits until the test answers it."""
        held: list[Route] = []

        def keep(route: Route) -> None:
            if len(held) < number:
                held.append(route)
            else:
                route.continue_()

        self.page.route(address, keep)
        return held

    def settle(self) -> None:
        """Lets the page take what has come by now."""
        self.page.evaluate("new Promise((resolve) => setTimeout(resolve, 200))")

    def unexpected(self) -> list[str]:
        return [problem for problem in self.problems if not any(known in problem for known in self.expected)]

    def hear_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console {message.type}: {message.text}")

    def hear_request(self, request: Request) -> None:
        if not request.url.startswith(f"{self.url}/"):
            self.problems.append(f"a request elsewhere: {request.url}")


def launched(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))


@contextmanager
def visiting(browser: Browser, url: str, **context: Any) -> Generator[Visit]:
    """A visit that must leave nothing unexpected behind."""
    room: BrowserContext = browser.new_context(**context)
    page = room.new_page()
    page.add_init_script(TELLS_VIOLATIONS)
    page.set_default_timeout(15_000)
    visit = Visit(page, url)
    page.on("console", lambda message: visit.hear_console(message))
    page.on("pageerror", lambda error: visit.problems.append(f"uncaught: {error}"))
    page.on("request", lambda request: visit.hear_request(request))
    try:
        yield visit
        unexpected = visit.unexpected()
        assert not unexpected, unexpected
    finally:
        room.close()
