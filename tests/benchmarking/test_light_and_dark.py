"""The page's pictures in light and in dark: every colour follows the scheme, and can be told from the ground."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from merging.benchmarking.rendering.page import to_html
from merging.benchmarking.rendering.pictures import drawings
from merging.benchmarking.results import Benchmark
from merging.drawing import COLOURS, ON_CELLS, SCHEMES, WIDE, draw, inline, on
from merging.looking.interpolation import Interpolation
from merging.looking.pictures import curve

RESULTS = Path(__file__).parents[2] / "docs/results/pacs/bench_0/benchmark.json"
SVG = "{http://www.w3.org/2000/svg}"
GROUND, DECORATION = "paper", "grid"
TEXT, GRAPHICS = 4.5, 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11."""


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def painted(svg: str) -> Iterator[tuple[str, str, str]]:
    """(element, property, colour) of everything that an inline picture paints."""
    for element in ET.fromstring(svg).iter():  # noqa: S314 (our own)
        name = element.tag.removeprefix(SVG)
        assert not {"fill", "stroke"} & set(element.attrib)
        style = dict(re.findall(r"([\w-]+):\s*([^;]+)", element.get("style", "")))
        assert "opacity" not in style, "what shines through has another contrast"
        if name == "text":
            assert "fill" in style, "black unless it is said"
        for part in ("fill", "stroke"):
            if style.get(part, "none") != "none":
                yield name, part, style[part]


@pytest.fixture(scope="module")
def page() -> str:
    """Of real results: scatter, search, heat maps."""
    found = Benchmark.read(RESULTS)
    drawn = {name: (*draw(drawing, name, WIDE, "svg"),) * 2 for name, drawing in drawings(found).items()}
    return to_html(found, drawn)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def schemes(page: str) -> list[dict[str, str]]:
    """The page's variables in light, and in dark."""
    roots = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    assert len(roots) == 2
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", root)) for root in roots)
    assert set(light) == set(dark)
    return [light, dark]


def pictures(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def test_every_colour_of_every_picture_follows_the_scheme(page: str, schemes: list[dict[str, str]]) -> None:
    seen = set()
    for svg in pictures(page):
        map_of_colours = "coefficients" in svg
        for element, part, colour in painted(svg):
            variable = re.fullmatch(r"var\(--([\w-]+)\)", colour)
            if variable is None:
                if element == "text":
                    assert colour in ON_CELLS
                else:  # the cells of a heat map, whose colours are data
                    assert (map_of_colours, element, part) == (True, "path", "fill"), (element, part, colour)
                continue
            seen.add(variable[1])
            for scheme in schemes:
                least = TEXT if element == "text" else 1.0 if variable[1] in (GROUND, DECORATION) else GRAPHICS
                assert contrast(scheme[variable[1]], scheme[GROUND]) >= least, (element, part, variable[1])
    assert seen >= {"ink", "muted", "grid", "paper", "c1", "c6"}


def test_words_of_the_page_can_be_read(page: str, schemes: list[dict[str, str]]) -> None:
    style = page.partition("<style>")[2].partition("</style>")[0]
    named = set(re.findall(r"(?<![\w-])color: var\(--([\w-]+)\)", style))
    assert {"ink", "muted"} <= named
    assert not re.findall(r"(?<![\w-])(?:color|background|border[\w-]*): [^;]*#[0-9a-f]{3,6}", style)
    for scheme in schemes:
        for name in named:
            assert contrast(scheme[name], scheme[GROUND]) >= TEXT, name


def test_the_grid_is_seen_and_does_not_stand_out(schemes: list[dict[str, str]]) -> None:
    for scheme in schemes:
        assert 1.2 < contrast(scheme[DECORATION], scheme[GROUND]) < GRAPHICS


def empty(figure: Figure) -> None:
    figure.add_axes((0.2, 0.2, 0.7, 0.7))


def test_files_beside_the_page_are_right_on_white() -> None:
    for name, (light, _) in SCHEMES.items():
        if name not in (GROUND, DECORATION):
            assert contrast(light, "#ffffff") >= GRAPHICS
    assert set(COLOURS) <= {light for light, _ in SCHEMES.values()}
    (svg,) = draw(empty, "x", (3, 2), "svg")
    assert b"var(" not in svg
    assert svg.count(SCHEMES[GROUND][0].encode()) == 2, "the figure's ground and the axes'"


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_numbers_are_read_on_cells_of_any_colour(rgb: tuple[int, int, int]) -> None:
    red, green, blue = (value / 255 for value in rgb)
    assert contrast(on((red, green, blue)), to_hex((red, green, blue))) >= TEXT


def test_a_name_that_is_a_colour_stays_a_name() -> None:
    def drawing(figure: Figure) -> None:
        axes: Axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
        axes.set_title(SCHEMES["ink"][0])

    (svg,) = draw(drawing, "x", (3, 2), "svg")
    assert f">{SCHEMES['ink'][0]}</text>" in inline(svg)


def test_a_line_between_two_models_follows_the_scheme() -> None:
    scores: dict[str, tuple[float, ...]] = {name: (0.1, 0.2, 0.3) for name in ("held-out", "test")}
    found = Interpolation(
        first="a",
        second="b",
        objective="accuracy",
        shares=(0.0, 0.5, 1.0),
        scores=scores,
        samples=dict.fromkeys(scores, 10),
    )
    (svg,) = draw(lambda figure: curve(figure, found), "line", WIDE, "svg")
    assert {colour for _, _, colour in painted(inline(svg))} <= {f"var(--{name})" for name in SCHEMES}
