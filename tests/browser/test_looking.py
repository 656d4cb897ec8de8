"""The eye itself: what is wrong with a page is found, and nothing on one with which nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.looking import faults, look

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

HEAD = "<!doctype html><body style='margin: 0'>"
CHART = '<svg width="300" height="200" font-size="12">{}</svg>'
CELL = '<path d="M0,0h99v50h-99Z" fill="{}" opacity="{}"/><text x="5" y="30">cell</text>'
MARK = '<g class="mark-symbol role-mark"><path d="M0,0h9v9h-9Z" transform="translate(50,50)" {}/></g>'
TURNED = '<text transform="translate({},90) rotate(-45)">{}</text>'
WRONG = [
    ("the document is 1500 wide", "<p style='width: {}px'>wide</p>", 1500, 200),
    ("faint text, 2.", "<p style='color: {}'>grey</p>", "#aaa", "#666"),
    ("faint text, 1.00", "<p style='color: {}'>white</p>", "#fff", "#000"),
    ("faint text, 3.", "<div style='background: #0072b2'><b style='color: {}'>on blue</b></div>", "#cde", "#fff"),
    ("faint text, 3.", "<p style='opacity: {}'>half seen</p>", 0.5, 0.8),
    ("faint text, 1.", "<p style='color: rgb(0 0 0 / {}%)'>half there</p>", 20, 90),
    ("faint text, 1.", "<div style='background: rgb(0 0 0 / {}%)'>on a veil</div>", 90, 10),
    ("faint text, 1.", "<style>::placeholder {{ color: {} }}</style><input placeholder='which'>", "#eee", "#555"),
    ("faint text, 2.", "<p style='color: color-mix(in oklab, black {}%, white)'>mixed</p>", 30, 80),
    ("faint text, 1.", CHART.format(CELL.format("{}", 1)), "#222", "#fff"),
    ("faint text, 1.", CHART.format(CELL.format("#000", "{}")), 0.9, 0.1),
    ("faint text, 1.", CHART.format('<text x="5" y="30" fill-opacity="{}">pale</text>'), 0.2, 1),
    ("outside its picture by", CHART.format('<text x="{}" y="30">a long name of a model</text>'), 250, 20),
    ("outside its picture by", CHART.format('<text x="50" y="{}">cut above</text>'), 4, 20),
    ("small text, 6.0", '<svg width="100" viewBox="0 0 {} 99"><text y="30" font-size="12">12</text></svg>', 200, 100),
    ("on one another: 'one'", CHART.format('<text x="9" y="50">one</text><text x="9" y="{}">two</text>'), 52, 66),
    ("on one another: 'b-b' and 'a-a'", CHART.format(TURNED.format(60, "a-a") + TURNED.format("{}", "b-b")), 66, 84),
    (
        "on one another: 'above' and 'below'",
        "<div style='position: relative'>above<span style='position: absolute; left: 0; top: {}px'>below</span></div>",
        3,
        30,
    ),
    ("cut: div", "<div style='width: {}px; overflow: hidden; white-space: nowrap'>a long line</div>", 40, 400),
    (
        "cut: div",
        "<div title='{}' style='width: 40px; overflow: hidden; text-overflow: ellipsis'>unbreakable</div>",
        "un",
        "unbreakable",
    ),
    ("cut: div", "<div style='height: {}px; overflow: clip'>two<br>lines</div>", 20, 90),
    ("faint mark, 1.", CHART.format(MARK.format('fill="{}"')), "#ddd", "#555"),
    ("faint mark, 1.", CHART.format(MARK.format('fill="none" stroke="{}"')), "#eee", "#06c"),
]
"""What is said of a body with the one value in it, and not with the other."""


@pytest.fixture(scope="module")
def page(browser: object) -> Page:
    """An empty page."""
    return browser.new_page(viewport={"width": 1000, "height": 800})  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(("said", "body", "bad", "good"), WRONG)
def test_what_is_wrong_is_found(page: Page, said: str, body: str, bad: object, good: object) -> None:
    page.set_content(f"{HEAD}{body.format(bad)}</body>")
    found = faults(look(page))
    assert len(found) == 1, found
    assert found[0].startswith(said), found
    page.set_content(f"{HEAD}{body.format(good)}</body>")
    assert faults(look(page)) == []


def test_what_scrolls_is_not_cut_and_what_is_hidden_is_not_seen(page: Page) -> None:
    page.set_content(
        f"{HEAD}"
        "<div style='width: 90px; height: 40px; overflow: auto; white-space: nowrap'>a long line to scroll</div>"
        "<p style='display: none; color: #fff'>not there</p><p style='visibility: hidden; color: #fff'>nor this</p>"
        "<details><summary>more</summary><p style='color: #fff'>later</p></details>"
        "<span style='position: absolute; width: 1px; height: 1px; overflow: hidden'>for screen readers</span></body>"
    )
    seen = look(page)
    assert faults(seen) == []
    assert [text["said"] for text in seen["texts"]] == ["a long line to scroll", "more"]
