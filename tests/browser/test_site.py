"""The site that ``make docs`` has built: readable in light and dark, on a desktop and a phone; its search works."""

from __future__ import annotations

import functools
import html
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import DESKTOP, PHONE
from tests.browser.looking import faults, look

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SITE, STYLE = ROOT / "build/site/html", ROOT / "docs/website/static"
PAGES = ("index", "python-api", "reference/strategy/ties", "api/running", "gallery/index", "results/pacs")
"""One of each kind: the first page, wide tables, a plug-in, the API, the gallery, results with pictures."""
NO_MARKS = "[none]"
"""Pictures are looked at on pages of results; here they may have points that are meant to be faint."""


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, where it is newer than the pages that it is made of."""
    begun = SITE / "_static/colours.css"  # what every build writes first
    made_of = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/website/*.py"), *STYLE.iterdir()]
    if not begun.is_file() or begun.stat().st_mtime < max(path.stat().st_mtime for path in made_of):
        pytest.skip("build/site/html is not there, or older than docs/: make docs (extra docs or dev-full)")
    return SITE


@pytest.fixture
def open_page(site: Path, windows: Callable[..., BrowserContext]) -> Iterator[Callable[..., Page]]:
    """Opens a page of the site, from its file and without a network; at the end nothing else was asked for or said."""
    pages: list[Page] = []
    heard: list[str] = []

    def opened(name: str, size: tuple[int, int]) -> Page:
        page = windows(size).new_page()
        page.on("console", lambda told: heard.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda asked: _own(asked.url) or heard.append(asked.url))
        pages.append(page)
        page.goto((site / name).as_uri())
        return page

    def _own(url: str) -> bool:
        return url.startswith((site.as_uri(), "data:"))

    yield opened
    for page in pages:
        page.close()
    assert heard == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_readable(open_page: Callable[..., Page], name: str, size: tuple[int, int]) -> None:
    page = open_page(f"{name}.html", size)
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        seen = look(page, NO_MARKS)
        assert faults(seen) == [], scheme
        grounds.append(sum(seen["ground"]))
        assert page.locator(f"img.only-{'dark' if scheme == 'light' else 'light'}").filter(visible=True).count() == 0
    assert grounds[0] > 700
    assert grounds[1] < 150
    assert page.locator("article h1").count() == 1


def test_its_head_says_what_it_is_about(site: Path) -> None:
    for name in ("index", "benchmark", "reference/strategy/ties", "api/running"):
        head = (site / f"{name}.html").read_text(encoding="utf-8").partition("</head>")[0]
        (said,) = re.findall('<meta name="description" content="([^"]+)"', head)
        assert 30 <= len(html.unescape(said)) <= 160
        assert 'rel="icon"' in head or 'rel="shortcut icon"' in head


def test_it_opens_as_the_readme_does(open_page: Callable[..., Page]) -> None:
    page = open_page("index.html", DESKTOP)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert page.locator("article h1").inner_text().strip("¶ ") == readme[0].removeprefix("# ")
    assert page.locator("article h1 + p").inner_text() == readme[2]
    assert page.locator("img.only-light").filter(visible=True).count() == 1


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site as a server shows it: what a browser may not read from files are the passages below what was found."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of what it is asked."""

    def log_message(self, *told: object) -> None:
        del told


def test_its_search_finds_a_plug_in(address: str, browser: Browser) -> None:
    """By scripts of its own, which ask nobody else."""
    page, asked = browser.new_page(), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}search.html?q=monosoup")
    found = page.locator("#search-results li", has=page.locator("a[href*='reference/strategy/monosoup.html']"))
    found.locator(".context").first.wait_for()
    assert faults(look(page, NO_MARKS)) == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    page.close()
