"""What a reader does with the page: points at marks, hides methods, sorts and filters tables, with mouse and keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import DESKTOP, PHONE, Open
from tests.browser.pages import RESULTS

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

POINTS = """figure => [...document.querySelectorAll(`#${figure} .live .role-mark.mark-symbol path`)].map(path => {
  const box = path.getBoundingClientRect(), x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
  const { method, model } = path.__data__.datum, height = document.documentElement.clientHeight;
  if (y < 0 || y > height) return null;
  return document.elementFromPoint(x, y) === path ? { x, y, method, model } : null;
}).filter(Boolean)"""
"""The points of a live chart that nothing covers: where they are, and whose."""
METHODS = """() => Object.fromEntries([...document.querySelectorAll('figure')].map(figure => [figure.id, [...new Set(
  [...figure.querySelectorAll('.live .role-mark path, .live .role-mark line')]
    .map(path => path.__data__?.datum?.method).filter(Boolean))]]))"""
"""The methods that each live chart shows."""
SCROLLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Waits until the page knows that it was scrolled, which ends what was told."""
SMALL = """all => all.map(one => one.getBoundingClientRect())
  .filter(({ width, height }) => Math.min(width, height) < 24).length"""
"""How many are smaller than a fingertip."""


def points(page: Page, chart: str) -> list[dict[str, Any]]:
    """The uncovered points of a chart, which is brought into sight."""
    page.locator(f"#{chart} .live").evaluate("element => element.scrollIntoView({block: 'center'})")
    page.evaluate(SCROLLED)
    return page.evaluate(POINTS, chart)  # type: ignore[no-any-return]


def rows(page: Page, method: str) -> list[bool]:
    """Of each row of a method, whether it is shown."""
    every = page.locator("tr[data-method]").all()
    return [row.is_visible() for row in every if row.get_attribute("data-method") == method]


def shown_in(page: Page, method: str) -> set[str]:
    """The charts that show a method."""
    return {chart for chart, methods in page.evaluate(METHODS).items() if method in methods}


@pytest.mark.parametrize("name", ["pacs", "made up"])
def test_pointing_at_a_mark_names_it_with_its_figures(show: Open, name: str) -> None:
    page = show(name, DESKTOP).page
    tip = page.locator("[role=tooltip]").filter(visible=True)
    assert tip.count() == 0
    for chart in ("forest", "scatter", "search"):
        found = points(page, chart)
        assert len(found) >= 5
        for point in found[:12]:
            page.mouse.move(point["x"], point["y"])
            tip.wait_for(timeout=2000)
            said, box = tip.inner_text(), tip.bounding_box()
            assert (point["method"] or point["model"]) in said
            assert re.search(r"\d", said)
            assert box is not None
            assert box["x"] >= 0
            assert box["y"] >= 0
            assert box["x"] + box["width"] <= DESKTOP[0]
            assert box["y"] + box["height"] <= DESKTOP[1]
        page.mouse.move(1, 1)
        tip.wait_for(state="detached", timeout=2000)


def test_what_looks_closer_is_folded_and_lies_open_on_paper(show: Open) -> None:
    page = show("pacs").page
    opened = "() => [...document.querySelectorAll('details.more')].map(more => more.open)"
    assert len(page.evaluate(opened)) >= 2
    page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert not any(page.evaluate(opened))
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert all(page.evaluate(opened))


def test_a_method_is_hidden_everywhere_and_comes_back(show: Open) -> None:
    """By its button with the mouse, by the keys, and by a click on its mark."""
    page = show("pacs").page
    method = "greedy"
    chip = page.locator(f'button[data-method="{method}"]').first
    before, others = shown_in(page, method), shown_in(page, "learned")
    assert {"forest", "scatter", "search"} <= before
    assert all(rows(page, method))
    assert chip.get_attribute("aria-pressed") == "true"

    def keys() -> None:
        chip.focus()
        page.keyboard.press("Space")

    def mark() -> None:
        point = next(point for point in points(page, "scatter") if point["method"] == method)
        page.mouse.click(point["x"], point["y"])

    for change in (chip.click, keys, mark):
        change()
        page.wait_for_timeout(50)
        assert shown_in(page, method) == set()
        assert shown_in(page, "learned") == others
        assert not any(rows(page, method))
        assert all(rows(page, "learned"))
        assert chip.get_attribute("aria-pressed") == "false"
        chip.click()
        page.wait_for_timeout(50)
        assert shown_in(page, method) == before
        assert all(rows(page, method))
        assert chip.get_attribute("aria-pressed") == "true"


def column(page: Page, table: str, place: int) -> list[float]:
    """The numbers of a column, from top to bottom; rows without one are infinitely small."""
    texts = page.locator(f"#{table} tbody tr").evaluate_all(
        "(rows, k) => rows.map(row => row.cells[k]?.innerText ?? '')", place
    )
    numbers = [re.search(r"-?\d+(\.\d+)?", text.replace("−", "-").replace(",", "")) for text in texts]
    return [float(number[0]) if number else float("-inf") for number in numbers]


def test_a_column_sorts(show: Open) -> None:
    """Of both tables, with the mouse and the keys; what has no score is last either way."""
    page = show("made up").page
    for table, keys in (("scores", True), ("pool", False)):
        heading = page.locator(f"#{table} thead th[aria-sort]").nth(2)
        place = heading.evaluate("cell => cell.cellIndex")
        button = heading.locator("button")
        before = column(page, table, place)
        found = {}
        for _ in range(2):
            if keys:
                button.focus()
                page.keyboard.press("Enter")
            else:
                button.click()
            found[heading.get_attribute("aria-sort")] = column(page, table, place)
        assert found.keys() == {"ascending", "descending"}
        known = sorted(value for value in before if value > float("-inf"))
        rest = [value for value in before if value == float("-inf")]
        assert len(set(known)) > 3
        assert found["ascending"] == known + rest
        assert found["descending"] == known[::-1] + rest
        button.click()
        assert heading.get_attribute("aria-sort") == "none"
        assert column(page, table, place) == before, "the third time restores the order that was"


def test_the_filter_leaves_what_has_all_words(show: Open) -> None:
    page = show("pacs").page
    field = page.locator("input[type=search]").first
    shown = page.locator("#pool tbody tr").filter(visible=True)
    names = [single.name for single in RESULTS["pacs"]().singles]
    assert shown.count() == len(names)
    field.fill("MODEL_0")
    assert {row.locator("th").inner_text() for row in shown.all()} == {name for name in names if "model_0" in name}
    field.fill("model no-such-word")
    assert shown.count() == 0
    field.fill("")
    assert shown.count() == len(names)


def test_a_finger_reaches_what_a_mouse_does(show: Open) -> None:
    """On a phone: chips and headings are large enough, and a touch at a point says what it is."""
    page = show("pacs", PHONE).page
    small = page.locator("button[data-method], th[aria-sort] button").filter(visible=True).evaluate_all(SMALL)
    assert small == 0, "24 pixels are the least (WCAG 2.2, 2.5.8)"
    point = next(point for point in points(page, "forest") if point["method"])
    page.touchscreen.tap(point["x"], point["y"])
    tip = page.locator("[role=tooltip]").filter(visible=True)
    tip.wait_for(timeout=2000)
    assert point["method"] in tip.inner_text()
    assert all(rows(page, point["method"])), "it hides nothing"
