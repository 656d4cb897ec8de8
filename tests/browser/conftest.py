"""One browser for all tests of pages; each page is rendered once, and may ask for nothing but its own file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from merging.benchmarking.rendering.forms import render
from tests.browser.pages import RESULTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

KNOWN = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESKTOP, PHONE = (1280, 800), (390, 844)


def found_browser() -> str:
    """The browser that MERGING_BROWSER names, or the first that is known of; a test that finds none is skipped."""
    named = os.environ.get("MERGING_BROWSER", "")
    if named and Path(named).is_file():
        return named
    if named:
        pytest.skip(f"MERGING_BROWSER names no file: {named}")
    found = next((path for name in KNOWN if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"there is no browser ({', '.join(KNOWN)}, or the one that MERGING_BROWSER names)")
    return found


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser of its own, without a window; it ends with these tests, whose event loop others cannot share."""
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed (extra dev-full)")
    path = found_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass
class Opened:
    """A page of a file, with all that it has said to the console and asked for besides; a good one leaves it empty."""

    page: Page
    own: str
    heard: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Hears errors, warnings and requests from now on."""
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.heard.append(f"error: {error}"))
        self.page.on("request", lambda asked: self._asked(asked.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.heard.append(f"{message.type}: {message.text}")

    def _asked(self, url: str) -> None:
        if not url.startswith(("data:", "blob:")) and url != self.own:
            self.heard.append(f"asked for {url[:200]}")


Open = Callable[..., Opened]


@pytest.fixture(scope="package")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Renders results by name, each once, and gives the page's file."""
    made: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("pages")
            render(RESULTS[name](), folder)
            made[name] = folder / "benchmark.html"
        return made[name]

    return page


@pytest.fixture(scope="package")
def windows(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Windows that reach no network, made when they are needed: of a desktop or a phone, with scripts or without."""
    made: dict[tuple[int, bool], BrowserContext] = {}

    def window(size: tuple[int, int], *, scripts: bool = True) -> BrowserContext:
        key = size[0], scripts
        if key not in made:
            phone = size == PHONE
            made[key] = browser.new_context(
                viewport={"width": size[0], "height": size[1]},
                offline=True,
                java_script_enabled=scripts,
                is_mobile=phone,
                has_touch=phone,
                reduced_motion="reduce",
            )
        return made[key]

    yield window
    for context in made.values():
        context.close()


@pytest.fixture
def show(rendered: Callable[[str], Path], windows: Callable[..., BrowserContext]) -> Iterator[Open]:
    """``show('pacs', DESKTOP)``: a page in a window of its own; at the end, it has said and asked for nothing."""
    shown: list[Opened] = []

    def opened(name: str, size: tuple[int, int] = DESKTOP, *, scripts: bool = True, before: str = "") -> Opened:
        page = windows(size, scripts=scripts).new_page()
        if before:
            page.add_init_script(before)
        found = Opened(page, rendered(name).as_uri())
        found.listen()
        shown.append(found)
        page.goto(found.own)
        if scripts:
            page.wait_for_selector("html[data-charts]", state="attached")
            page.evaluate("() => document.querySelectorAll('details.more').forEach(more => more.open = true)")
        return found

    yield opened
    for one in shown:
        one.page.close()
        assert one.heard == []
