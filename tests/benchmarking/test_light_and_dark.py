"""The page's pictures in light and in dark: every colour follows the scheme, and can be told from the ground."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import altair as alt
import pytest

from merging.benchmarking.rendering.page import to_html
from merging.benchmarking.rendering.pictures import drawings
from merging.benchmarking.results import Benchmark
from merging.drawing import SCHEMES, WIDE, Size, draw, inline
from merging.drawing.frame import Headed, Margins, framed, rows
from merging.drawing.theme import FULL
from merging.looking.interpolation import Interpolation

RESULTS = Path(__file__).parents[2] / "docs/results/pacs/bench_0/benchmark.json"
SVG = "{http://www.w3.org/2000/svg}"
GROUND, DECORATION = "paper", "grid"
TEXT, GRAPHICS = 4.5, 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11."""
MARKS = [name for name in SCHEMES if name not in (GROUND, DECORATION)]


def channels(colour: str) -> list[float]:
    return [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]


def luminance(colour: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def painted(svg: str) -> Iterator[tuple[str, str, str]]:
    """(element, property, colour) of everything that an inline picture paints."""
    for element in ET.fromstring(svg).iter():  # noqa: S314 (our own)
        name = element.tag.removeprefix(SVG)
        assert "style" not in element.attrib
        if name == "text":
            assert "fill" in element.attrib, "black unless it is said"
            assert "opacity" not in element.attrib, "what shines through has another contrast"
        for part in ("fill", "stroke"):
            if element.get(part, "none") != "none":
                yield name, part, element.attrib[part]


@pytest.fixture(scope="module")
def page() -> str:
    """Without its pictures."""
    return to_html(Benchmark.read(RESULTS), {})


@pytest.fixture(scope="module")
def schemes(page: str) -> list[dict[str, str]]:
    """The page's variables in light, and in dark."""
    roots = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    assert len(roots) == 2
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", root)) for root in roots)
    assert set(light) == set(dark)
    return [light, dark]


def test_every_colour_of_every_picture_follows_the_scheme() -> None:
    seen = set()
    for name, drawing in drawings(Benchmark.read(RESULTS)).items():
        (svg,) = draw(drawing, name, WIDE, "svg")
        for element, part, colour in painted(inline(svg, name)):
            variable = re.fullmatch(r"var\(--([\w-]+)\)", colour)
            assert variable is not None, (element, part, colour)
            seen.add(variable[1])
            if element == "text":
                assert variable[1] in ("ink", "muted")
    assert seen == set(SCHEMES)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_marks_and_words_can_be_told_from_the_ground(scheme: int) -> None:
    colours = {name: channels(pair[scheme]) for name, pair in SCHEMES.items()}
    for name in MARKS:
        least = TEXT if name in ("ink", "muted") else GRAPHICS
        assert contrast(colours[name], colours[GROUND]) >= least, name
    assert 1.2 < contrast(colours[DECORATION], colours[GROUND]) < GRAPHICS, "a grid is seen and does not stand out"


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["c1", "c2"])
def test_numbers_are_read_on_every_cell_of_a_heat_map(name: str, scheme: int) -> None:
    ground, hue, ink = (channels(SCHEMES[key][scheme]) for key in (GROUND, name, "ink"))
    for step in range(21):
        shade = step / 20 * FULL
        cell = [shade * c + (1 - shade) * g for c, g in zip(hue, ground, strict=True)]
        assert contrast(cell, ink) >= TEXT, shade


def test_words_of_the_page_can_be_read(page: str, schemes: list[dict[str, str]]) -> None:
    style = page.partition("<style>")[2].partition("</style>")[0]
    named = set(re.findall(r"(?<![\w-])color: var\(--([\w-]+)\)", style))
    assert {"ink", "muted"} <= named
    assert not re.findall(r"(?<![\w-])(?:color|background|border[\w-]*): [^;]*#[0-9a-f]{3,6}", style)
    for scheme in schemes:
        for name in named:
            assert contrast(channels(scheme[name]), channels(scheme[GROUND])) >= TEXT, name


def called(name: str, size: Size) -> alt.LayerChart:
    points = rows([{"x": 1, "name": name}])
    drawn = points.mark_text(color="var(--c1)").encode(x="x:Q", text="name:N")
    return framed([drawn], size, Margins(20, 20, 40, 20), Headed((name,), ()))


def test_files_beside_the_page_are_right_on_white() -> None:
    (svg,) = draw(lambda size: called("x", size), "x", WIDE, "svg")
    assert b"var(" not in svg
    colours = {colour for _, part, colour in painted(svg.decode())}
    assert colours <= {light for light, _ in SCHEMES.values()}


@pytest.mark.parametrize("name", [SCHEMES["ink"][0], "var(--c1)", ' fill="#1a1d21"'])
def test_a_name_that_is_a_colour_stays_a_name(name: str) -> None:
    (svg,) = draw(lambda size: called(name, size), "x", WIDE, "svg")
    texts = [text.text for text in ET.fromstring(inline(svg, "y")).iter(f"{SVG}text")]  # noqa: S314
    assert texts.count(name.strip()) == 2, texts


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
    svg = inline(found.plot().svg(), "line")
    assert {colour for _, _, colour in painted(svg)} <= {f"var(--{name})" for name in SCHEMES}
