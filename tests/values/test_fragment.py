"""What a notebook shows of a run and a benchmark: the page's card, the forest in the notebook's colours, the table."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

import merging
from merging.benchmarking.rendering.card import card
from merging.benchmarking.results import Benchmark
from merging.drawing import SCHEMES
from merging.storage.pool import ModelPool
from merging.values import shown
from merging.values.verdict_card import card_of

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def report() -> merging.Report:
    return merging.Report.from_json(RESULTS / "animals" / "first")


@pytest.fixture(scope="module")
def found() -> Benchmark:
    return Benchmark.read(RESULTS / "digits" / "compared")


@pytest.fixture(scope="module")
def fragments(report: merging.Report, found: Benchmark) -> dict[str, str]:
    return {"report": report._repr_html_(), "benchmark": found._repr_html_()}


KINDS = ("report", "benchmark")


@pytest.mark.parametrize("kind", KINDS)
def test_card_then_picture_then_table(kind: str, fragments: dict[str, str]) -> None:
    html = fragments[kind]
    places = [html.index(mark) for mark in ('<section class="merging-card', "<figure>", "<table")]
    assert places == sorted(places)
    assert html.count("<svg") == 1


def test_it_is_the_card_of_the_page(report: merging.Report, found: Benchmark, fragments: dict[str, str]) -> None:
    assert card_of(report).html() in fragments["report"]
    assert card(found).html() in fragments["benchmark"]


def test_what_the_card_says_is_not_said_again(report: merging.Report, fragments: dict[str, str]) -> None:
    text = unescape(re.sub(r"<[^>]*>", "\n", fragments["report"]))
    assert text.count(merging.answer(report).headline) == 1
    assert "held-out 52.38 %" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_follows_the_notebook(kind: str, fragments: dict[str, str]) -> None:
    """Text is the notebook's, colours are the theme's, and where no style is kept those of a light page."""
    svg = re.search(r"<svg.*?</svg>", fragments[kind], re.DOTALL)
    assert svg is not None
    colours = set(re.findall(r' (?:fill|stroke)="([^"]*)"', svg[0]))
    assert "currentColor" in colours
    assert colours - {"none", "currentColor", "transparent"} <= {
        f"var(--{name}, {light})" for name, (light, _) in SCHEMES.items()
    }
    for k, mark in enumerate(("\n.merging-shown", f"\n:is({shown.DARK}) .merging-shown")):
        rule = re.search(re.escape(mark) + r" \{ --muted: ([^;]*);", fragments[kind].replace("<style>", "\n"))
        assert rule is not None
        assert rule[1] == SCHEMES["muted"][k]
    assert re.match(r'<svg[^>]* aria-label="[^"]', svg[0])


def test_pictures_of_one_notebook_keep_apart(fragments: dict[str, str]) -> None:
    first, second = (set(re.findall(r' id="(picture-[^"]*)"', html)) for html in fragments.values())
    assert not first & second


def test_a_run_that_compares_nothing_has_no_picture(pool: ModelPool) -> None:
    html = merging.merge(pool, "uniform")._repr_html_()
    assert "without a task there is no data to score it on" in html
    assert "<figure" not in html
