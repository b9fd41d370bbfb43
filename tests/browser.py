"""A real Chromium, what a visitor with one would complain of, and pictures of what was seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from tests.api_site import served
from tests.mariadb import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("background-networking", "component-update", "sync", "gpu", "quic")
SCREENSHOTS = Path(__file__).resolve().parents[1] / "screenshots"
WIDTHS = (1280, 390)
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
LANGUAGES = ("zh", "en")
# What can be seen in the page itself; a list of complaints.
COMPLAINTS = """() => {
  const found = [], say = (what, element) => found.push(`${what}: ${element.outerHTML.slice(0, 120)}`);
  const name = (element) => (element.getAttribute("aria-label") || element.textContent || element.title).trim();
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) found.push(`${wide} pixels wider than the window`);
  document.querySelectorAll("input:not([type=hidden]):not([hidden]), select, textarea").forEach((field) => {
    if (![...field.labels].some((label) => label.textContent.trim())) say("no label", field);
  });
  document.querySelectorAll("a, button, svg[role=img], progress, summary").forEach((element) => {
    if (!name(element)) say("no name", element);
  });
  document.querySelectorAll(".green, .yellow, .red, .cyan").forEach((element) => {
    if (!element.closest("svg") && !element.textContent.trim()) say("only a colour", element);
  });
  let level = 0;
  document.querySelectorAll("h1, h2, h3, h4").forEach((heading) => {
    const mine = Number(heading.tagName[1]);
    if (mine > level + 1) say("a level left out", heading);
    level = mine;
  });
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  if (document.querySelectorAll("main").length !== 1) found.push("not one main");
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => found.push(`twice the id ${id}`));
  return found;
}"""


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium as the machine has it; without one the test is skipped, and says so."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        missing("chromium", "Chromium is not installed (Debian: apt-get install chromium)")
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in QUIET)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


class Visitor:
    """A window of one size on one site; everything a browser complains of is kept in `problems`."""

    def __init__(
        self,
        browser: Browser,
        site: str,
        *,
        width: int = 1280,
        scheme: Scheme = "light",
        language: str = "zh",
        javascript: bool = True,
    ) -> None:
        self.site, self.width, self.scheme, self.language = site, width, scheme, language
        self.context = browser.new_context(
            base_url=site,
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=javascript,
        )
        self.context.set_default_timeout(30_000)
        self.context.add_cookies([{"name": "navkeeper_language", "value": language, "url": site}])
        self.problems: list[str] = []
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self._note(f"console: {message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self._note(f"error: {error}"))
        self.page.on("request", self._asked)

    def _note(self, problem: str) -> None:
        self.problems.append(f"{urlsplit(self.page.url).path} {problem}")

    def _asked(self, request: Any) -> None:
        asked = urlsplit(request.url)
        if asked.scheme != "data" and f"{asked.scheme}://{asked.netloc}" != self.site:
            self._note(f"asked another host: {request.url}")

    def log_in(self, token: str) -> None:
        self.page.goto("/login")
        self.page.fill("#token", token)
        with self.page.expect_navigation():
            self.page.press("#token", "Enter")

    def look(self, path: str, name: str) -> None:
        """Open a page, take its picture and note what is wrong with it."""
        answer = self.page.goto(path)
        if answer is None or answer.status != 200:
            self._note(f"answered {answer and answer.status}")
        self.picture(name)
        if self.page.get_attribute("html", "lang") != self.language:
            self._note("in another language")
        for complaint in self.page.evaluate(COMPLAINTS):
            self._note(complaint)

    def picture(self, name: str) -> None:
        file = SCREENSHOTS / f"{name}-{self.width}-{self.scheme}-{self.language}.png"
        self.page.screenshot(path=file, full_page=True)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_error: object) -> None:
        self.context.close()


@contextmanager
def visiting(browser: Browser, app: Any, token: str | None = None, **window: Any) -> Iterator[Visitor]:
    """The application on a real socket, and somebody who looks at it; no complaint may be left at the end."""
    with served(app) as client, Visitor(browser, str(client.base_url), **window) as visitor:
        if token is not None:
            visitor.log_in(token)
        yield visitor
        assert visitor.problems == []
