"""The page: one file that loads nothing, in the order in which it is read; its script finds what it sorts and hides."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import merging.benchmarking.rendering.page as module
from merging.benchmarking.rendering.card import card
from merging.benchmarking.rendering.figures import Figure
from merging.benchmarking.rendering.page import LARGEST, to_html
from merging.benchmarking.rendering.tables import shown
from merging.benchmarking.results import SHIFTED, Benchmark
from merging.errors import showable
from merging.values.report import Report
from merging.values.states import MethodState, RunState
from merging.values.verdict_card import card_of
from tests.benchmarking.reading_pages import Read

SCRIPT = Path(module.__file__).with_name("page.js").read_text(encoding="utf-8")
HOSTILE = "</script><img src=x onerror=alert(1)>'\"&amp;{{ 7 * 7 }}\u2028\u202e\x1b[31m"


@pytest.fixture(scope="module")
def page(digits: Benchmark, figures: Mapping[str, Figure]) -> str:
    return to_html(digits, figures)


@pytest.fixture(scope="module")
def read(page: str) -> Read:
    return Read.of(page)


def unpacked(read: Read, name: str) -> str:
    (text,) = [text for attributes, text in read.scripts if attributes.get("id") == name]
    return gzip.decompress(base64.b64decode(text)).decode()


def test_it_is_read_in_order(page: str, digits: Benchmark) -> None:
    sections = re.findall(r'<section class="([\w-]+)">', page)
    assert sections == [
        "verdict",
        "differences",
        "scores",
        "home-and-shift",
        "coefficients",
        "search",
        "models",
        "how",
    ]
    places = [page.index(text) for text in (card(digits).decision, '<nav class="chips"', 'id="forest"', 'id="scores"')]
    assert all(one < other for one, other in pairwise(places))


def test_it_says_its_size_and_has_room_for_more(page: str, read: Read) -> None:
    size = len(page.encode())
    assert size < 1_000_000
    assert f"one file of {size / 1000:,.0f} kB and loads nothing" in read.text
    assert re.search(r"Vega [\d.]+, Vega-Lite [\d.]+, vega-embed [\d.]+ are in it", read.text)
    assert "default-src 'none'" in page.replace("&#39;", "'")


def test_scripts_and_specifications_are_in_it(read: Read, figures: Mapping[str, Figure]) -> None:
    assert "vegaEmbed" in unpacked(read, "vega")
    specifications = json.loads(unpacked(read, "charts"))
    assert set(specifications) == set(figures) == {figure["id"] for figure in read.figures}
    for name, figure in figures.items():
        assert specifications[name] == figure.live
        assert set(figure.live) == {"wide", "narrow"}
    kinds = [attributes.get("type") for attributes, _ in read.scripts]
    assert kinds == ["application/gzip", "application/gzip", None]


def test_its_script_is_short_and_makes_no_markup() -> None:
    assert len(SCRIPT.splitlines()) <= 200
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch|XMLHttp|import\(", SCRIPT
    )


def test_a_button_a_method_and_rows_that_it_hides(read: Read, digits: Benchmark) -> None:
    labels = [row.label for row in digits.rows]
    buttons = [button for button in read.buttons if "data-method" in button]
    assert [button["data-method"] for button in buttons] == labels
    assert {button["aria-pressed"] for button in buttons} == {"true"}
    scores, *comparisons = read.tables[: 1 + len(digits.references)]
    assert [row["data-method"] for row, _ in scores[1:]] == labels
    for table in comparisons:
        assert {row["data-method"] for row, _ in table[1:]} < set(labels)
    hidden = [figure["data-method"] for figure in read.figures if "data-method" in figure]
    assert hidden == ["learned", "manifoldmix"], "coefficients go with their method, those of the one to take first"


def test_cells_have_the_values_by_which_they_are_sorted(read: Read, digits: Benchmark) -> None:
    columns = ["", SHIFTED, *shown(digits)]
    for row, (_, cells) in zip(digits.rows, read.tables[0][1:], strict=True):
        assert cells[0][0]["data-value"] == row.label
        for column, (attributes, text) in list(zip(columns, cells, strict=False))[1:]:
            value = row.value(column)
            assert value is not None
            assert float(attributes["data-value"]) == pytest.approx(value)
            assert text.startswith(f"{100 * value:.2f}")
        costs = [float(attributes["data-value"]) for attributes, _ in cells[len(columns) :]]
        assert costs[2:4] == pytest.approx([row.evaluations, row.forward_equivalents])
    models = read.tables[-1]
    assert len(models) == 1 + len(digits.singles)
    assert all("data-value" in cells[0][0] for _, cells in models[1:])


def test_the_average_stands_second_on_a_phone_and_once_on_any_screen(read: Read, page: str) -> None:
    for table in read.tables:
        for _, cells in table:
            named = [attributes.get("class", "") for attributes, _ in cells]
            assert named.count("twin") == named.count("home") == 1
            assert named[1] == "twin"
            (one, other) = (cells[named.index(kind)] for kind in ("twin", "home"))
            assert (one[0].get("data-value"), one[1]) == (other[0].get("data-value"), other[1])
    style = page.partition("<style>")[2].partition("</style>")[0]
    narrow = style.partition("@media (max-width: 640px)")[2].partition("@media print")[0]
    assert ".twin { display: none; }" in style.partition("@media (max-width")[0]
    assert ".home { display: none; }" in narrow
    assert ".twin { display: table-cell; }" in narrow


def test_names_are_text_wherever_they_stand(digits: Benchmark) -> None:
    first, second, *others = digits.rows
    rows = (replace(first, label=HOSTILE), replace(second, label="b", ingredients=(HOSTILE,)), *others)
    singles = (replace(digits.singles[0], name=HOSTILE, trained={HOSTILE: HOSTILE}), *digits.singles[1:])
    texts = {"task": HOSTILE, "command": HOSTILE, "notes": (HOSTILE,), "header": {HOSTILE: HOSTILE}}
    page = to_html(replace(digits, rows=rows, singles=singles, **texts), {})  # type: ignore[arg-type]
    read = Read.of(page)
    assert [attributes for attributes, _ in read.scripts] == [{}], "the page's own"
    assert "alert(1)" not in read.scripts[0][1]
    assert read.buttons[0]["data-method"] == read.tables[0][1][0]["data-method"] == showable(HOSTILE)
    assert "49" not in read.buttons[0]["data-method"]
    assert not {"\u202e", "\x1b", "\u2028"} & set(page)


def test_what_did_not_finish_has_its_reason_and_no_value(digits: Benchmark) -> None:
    broken = replace(digits.rows[1], status=MethodState.FAILED, why="it broke", held_out=None, tests={}, verdicts=())
    read = Read.of(to_html(replace(digits, rows=(digits.rows[0], broken, *digits.rows[2:])), {}))
    _, cells = read.tables[0][2]
    assert cells[1][1] == "failed: it broke"
    assert int(cells[1][0]["colspan"]) == len(read.tables[0][0][1]) - 2, "of the average, one of two is shown"
    assert "data-value" not in cells[1][0]
    assert "data-value" in cells[0][0], "its name"


def test_an_unfinished_benchmark_decides_nothing(digits: Benchmark) -> None:
    read = Read.of(to_html(replace(digits, state=RunState.INTERRUPTED), {}))
    assert read.headings[1] == "Not decided yet: the benchmark is not finished"
    assert "Not finished: interrupted" in read.text


def test_the_page_of_a_run_has_the_run_s_own_card(digits: Benchmark) -> None:
    report = Report.from_json(Path(__file__).parents[2] / "docs/results/animals/first")
    own = card_of(report)
    read = Read.of(to_html(digits, {}, own))
    assert read.headings[1] == own.decision
    assert own.answer.headline in read.text
    assert card(digits).decision not in read.text


def test_heat_maps_without_room_are_drawn_by_the_script_alone(
    digits: Benchmark, figures: Mapping[str, Figure], page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = {name: figure for name, figure in figures.items() if name.startswith("coefficients-")}
    small, large = sorted(maps, key=lambda name: len(maps[name].wide))
    without = len(page.encode()) - len(maps[large].wide)
    monkeypatch.setattr(module, "LARGEST", without)
    text = to_html(digits, figures)
    assert len(text.encode()) < LARGEST
    assert f"{large}: drawn where scripts are allowed" in text
    assert f"{small}: drawn" not in text
    assert {*figures} == set(json.loads(unpacked(Read.of(text), "charts")))


def test_a_long_pool_is_whole_and_can_be_filtered(digits: Benchmark) -> None:
    singles = tuple(
        replace(digits.singles[0], name=f"model_{number}", held_out=0.5 + number / 200) for number in range(72)
    )
    text = to_html(replace(digits, singles=singles), {})
    assert len(Read.of(text).tables[-1]) == 73
    assert '<input type="search"' in text
    assert '<input type="search"' not in to_html(digits, {})


def test_what_stands_apart_has_a_part_of_its_own(digits: Benchmark, figures: Mapping[str, Figure]) -> None:
    other = replace(digits, folders=("b",), why="other data: no set in common")
    both = replace(digits, folders=("a",), apart=(other,), left_out={"c": "it was not scored"})
    drawn = {f"{before}{name}": figure for before in ("", "2-") for name, figure in figures.items()}
    text = to_html(both, drawn)
    read = Read.of(text)
    assert len(re.findall('<article class="part">', text)) == 2
    assert {figure["id"] for figure in read.figures} == set(drawn)
    assert {"scores", "2-scores", "pool", "2-pool"} <= set(read.ids)
    assert "other data: no set in common" in read.text
    assert "c: it was not scored" in read.text


def test_a_row_says_which_folder_it_is_of(digits: Benchmark) -> None:
    first, second, *others = digits.rows
    rows = (replace(first, folders=("a", "b")), replace(second, label="uniform [b]", folders=("b",)), *others)
    table = Read.of(to_html(replace(digits, rows=rows, folders=("a", "b")), {})).tables[0]
    assert [cells[0][1] for _, cells in table[1:3]] == ["best (model_05)a, b", "uniform [b]"]
