"""The page in a browser: readable on a desktop and a phone, in light and dark, printed, and without scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import DESKTOP, PHONE, Open
from tests.browser.looking import faults, look
from tests.browser.pages import RESULTS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
DRAWN = """() => [...document.querySelectorAll('figure')].map(figure => {
  const shown = [...figure.querySelectorAll('svg')].filter(svg => !svg.ownerSVGElement && svg.checkVisibility()
    && svg.getBoundingClientRect().width > 100);
  const forms = shown.map(svg => ['live', 'wide', 'narrow'].find(kind => svg.closest('.' + kind)));
  return [figure.id, figure.querySelector('.narrow') !== null, forms.join() || figure.innerText];
})"""
SCRIPTED = "button, input, select, [role=button]"
"""What does nothing without scripts, and is not shown then."""


def check_forms(page: Page, wanted: str) -> None:
    """Each picture is there once, in its form for a desktop where it has no other; for a large one, a line."""
    shown = page.evaluate(DRAWN)
    assert {"forest", "scatter"} <= {name for name, _, _ in shown}
    for name, both, form in shown:
        if wanted == "live" or name not in form:
            assert form == ("wide" if wanted == "narrow" and not both else wanted), name


@SIZES
@pytest.mark.parametrize("name", RESULTS)
def test_a_page_is_whole_and_readable(show: Open, name: str, size: tuple[int, int]) -> None:
    """In light, and when it turns dark while it is open."""
    page = show(name, size).page
    check_forms(page, "live")
    light = look(page)
    assert faults(light) == []
    page.emulate_media(color_scheme="dark")
    dark = look(page)
    assert faults(dark) == []
    assert [text["said"] for text in dark["texts"]] == [text["said"] for text in light["texts"]]
    grounds = [sum(seen["ground"]) for seen in (light, dark)]
    assert grounds[0] > 700
    assert grounds[1] < 150, "dark is dark"
    assert len(light["marks"]) == len(dark["marks"]) > len(RESULTS)


@SIZES
@pytest.mark.parametrize("name", ["pacs", "made up"])
def test_without_scripts_all_is_there(show: Open, name: str, size: tuple[int, int]) -> None:
    page = show(name, size, scripts=False).page
    check_forms(page, "narrow" if size == PHONE else "wide")
    seen = look(page)
    assert faults(seen) == []
    assert page.locator(SCRIPTED).filter(visible=True).count() == 0, "what would do nothing"
    found = RESULTS[name]()
    rows = page.locator("#scores tbody tr")
    assert rows.count() == len(found.rows)
    assert rows.filter(visible=True).count() == len(found.rows)
    assert page.locator("#pool tbody tr").filter(visible=True).count() == len(found.singles)


def test_a_browser_that_cannot_unpack_keeps_the_pictures(show: Open) -> None:
    page = show("run", before="delete window.DecompressionStream").page
    assert page.get_attribute("html", "data-charts") == "static"
    check_forms(page, "wide")
    assert faults(look(page)) == []


def test_paper_is_white_and_has_everything(show: Open) -> None:
    """Printed on A4 from a browser that is dark."""
    page = show("several").page
    page.set_viewport_size({"width": 718, "height": 1047})
    page.emulate_media(media="print", color_scheme="dark")
    check_forms(page, "wide")
    seen = look(page)
    assert faults(seen) == []
    assert sum(seen["ground"]) > 700
    assert page.locator(SCRIPTED).and_(page.locator(":not(th button)")).filter(visible=True).count() == 0
    assert page.locator("#scores tbody tr").filter(visible=True).count() == len(RESULTS["several"]().rows)
