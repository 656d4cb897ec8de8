"""Every chart as a specification: valid, with figures at hand, methods that can be hidden, the same bits, no harm."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from merging.benchmarking.rendering.pictures import drawings
from merging.benchmarking.results import Benchmark
from merging.drawing import NARROW, WIDE, Drawing, draw, inline, live, scripts
from merging.drawing.frame import HIDDEN
from merging.drawing.words import width

RESULTS = Path(__file__).parents[2] / "docs/results/pacs/bench_0/benchmark.json"
SVG = "{http://www.w3.org/2000/svg}"
TAGS = {"svg", "g", "path", "text", "rect", "line", "defs", "clipPath", "tspan"}
HOSTILE = [
    "</text></svg><script>alert(1)</script>",
    '" onload="alert(1)\\',
    '\\": warn(1), "$x^2$ \x1b[2J\n\u202e',
    "مرحبا بالعالم",
    "x" * 300,
]


@pytest.fixture(scope="module")
def found() -> Benchmark:
    return Benchmark.read(RESULTS)


@pytest.fixture(scope="module")
def charts(found: Benchmark) -> dict[str, Drawing]:
    made = drawings(found)
    return {name: made[name] for name in ("forest", "scatter", "search", "coefficients-wise-greedy")}


def layers(spec: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each layer with its rows."""
    sets = spec.get("datasets", {})
    made = []
    for layer in spec["layer"]:
        data = layer.get("data", spec.get("data", {}))
        made.append((layer, data.get("values") or sets.get(data.get("name"), [])))
    return made


def tips(layer: dict[str, Any]) -> list[dict[str, Any]]:
    tip = layer["encoding"].get("tooltip", [])
    return tip if isinstance(tip, list) else [tip]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", ["forest", "scatter", "search", "coefficients-wise-greedy"])
def test_a_chart_is_valid_and_its_methods_can_be_hidden(charts: dict[str, Drawing], name: str, size: Any) -> None:
    spec = live(charts[name], size)
    alt.Chart.from_dict(json.loads(json.dumps(spec)))
    assert spec["params"] == [{"name": HIDDEN, "value": []}]
    assert spec["width"] + spec["padding"]["left"] + spec["padding"]["right"] == size.width
    for layer, rows in layers(spec):
        if any("method" in row for row in rows):
            assert {"filter": f"indexof({HIDDEN}, datum.method) < 0"} in layer["transform"]
        fields = {encoding["field"] for encoding in layer["encoding"].values() if "field" in encoding}
        for each in tips(layer):
            assert any(each["field"] in row for row in rows) or not rows, each
        assert not rows or all(any(field in row for row in rows) for field in fields)


def test_a_tooltip_names_the_method_and_says_its_figures(found: Benchmark, charts: dict[str, Drawing]) -> None:
    row = next(row for row in found.rows if row.label == "greedy")
    scored = f"{100 * row.tests['test']:.2f} [{', '.join(f'{100 * end:.2f}' for end in row.intervals['test'])}]"
    wanted = {
        "forest": {"method": "greedy", "set": "test", "difference": "+1.48 [-1.47, +4.59]", "p": "1"},
        "scatter": {"method": "greedy", "home": scored, "home_best": "+1.48 [-1.47, +4.59] p=1"},
        "search": {"method": "greedy", "count": f"{row.evaluations:g}"},
    }
    for name, figures in wanted.items():
        shown = []
        for layer, rows in layers(live(charts[name], WIDE)):
            fields = [tip["field"] for tip in tips(layer)]
            assert not fields or fields[0] in ("method", "model")
            shown += [{field: each.get(field) for field in fields} for each in rows]
        assert any(figures.items() <= each.items() for each in shown), (name, figures)


def test_names_at_the_right_stand_apart_and_clear_of_the_marks(charts: dict[str, Drawing]) -> None:
    for name in ("scatter", "search"):
        for size in (WIDE, NARROW):
            spec = live(charts[name], size)
            (places,) = [[r["place"] for r in rows] for layer, rows in layers(spec) if layer["mark"]["type"] == "text"]
            assert min(b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)) > 13
            (at,) = [layer["encoding"]["x"]["value"] for layer in spec["layer"] if layer["mark"]["type"] == "text"]
            assert at > spec["width"]


def test_an_outlier_is_at_the_edge_and_says_where_it_is(found: Benchmark) -> None:
    rows = [replace(row, shifted=0.02) if row.label == "uniform" else row for row in found.rows]
    spec = live(drawings(replace(found, rows=tuple(rows)))["scatter"], WIDE)
    text = next(rows for layer, rows in layers(spec) if layer["mark"]["type"] == "text")
    assert any(row["method"] == "uniform" and row["name"].endswith(", 2)") for row in text)
    domains = [layer["encoding"]["y"]["scale"]["domain"] for layer in spec["layer"] if "shape" in layer["encoding"]]
    assert min(low for low, _ in domains) > 20


def test_the_heat_map_drops_empty_models_and_puts_the_fullest_first(found: Benchmark) -> None:
    row = next(row for row in found.rows if row.label == "manifoldmix-loose")
    assert row.coefficients is not None
    spec = live(drawings(found)["coefficients-manifoldmix-loose"], NARROW)
    names = next(rows for layer, rows in layers(spec) if layer["mark"]["type"] == "text" and "name" in rows[0])
    sums = dict(zip(row.coefficients.ingredients, row.coefficients.values.sum(1), strict=True))
    shown = [each["name"] for each in names]
    assert shown == sorted((name for name in sums if sums[name]), key=lambda name: -sums[name])
    cells = next(rows for layer, rows in layers(spec) if layer["mark"]["type"] == "rect")
    assert all(cell["shade"] == 0 for cell in cells if float(cell["value"]) == 0)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_do_no_harm(found: Benchmark, name: str) -> None:
    rows = [replace(row, label=f"{row.label} {name}") for row in found.rows[:4]]
    made = drawings(replace(found, rows=tuple(rows)))
    for chart in ("scatter", "forest", "search"):
        (svg,) = draw(made[chart], name, NARROW, "svg")
        tree = ET.fromstring(inline(svg, name))  # noqa: S314 (our own)
        assert {element.tag.removeprefix(SVG) for element in tree.iter()} <= TAGS
        assert not [key for element in tree.iter() for key in element.attrib if key.startswith("on") or key == "href"]
        assert all(text.isprintable() for element in tree.iter() if (text := (element.text or "").strip()))


def test_a_set_with_a_long_name_sticks_out_nowhere(found: Benchmark) -> None:
    data = json.loads(found.dumps())
    long = {"test": "t" * 400}
    data["samples"] = {long.get(name, name): count for name, count in data["samples"].items()}
    for row in data["rows"]:
        row["tests"] = {long.get(name, name): score for name, score in row["tests"].items()}
        row["intervals"] = {long.get(name, name): ends for name, ends in row["intervals"].items()}
        row["verdicts"] = [verdict | {"set": long.get(verdict["set"], verdict["set"])} for verdict in row["verdicts"]]
    data["singles"] = []
    made = drawings(Benchmark.from_json(data))
    for chart in ("scatter", "forest"):
        (svg,) = draw(made[chart], chart, NARROW, "svg")
        texts = [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314
        assert any("ttt…ttt" in text for text in texts)
        assert max(width(text, 12) for text in texts) < NARROW.width


def test_a_set_called_image_fetches_nothing(found: Benchmark) -> None:
    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {"image" if name == "test" else name: renamed(v) for name, v in value.items()}
        return [renamed(each) for each in value] if isinstance(value, list) else value

    data = renamed(json.loads(found.dumps()))
    for row in data["rows"]:
        for verdict in row["verdicts"]:
            verdict["test"] = verdict.pop("image")
    spec = live(drawings(Benchmark.from_json(data))["scatter"], WIDE)
    titles = {tip.get("title") for layer in spec["layer"] for tip in tips(layer)}
    assert "image " in titles
    assert not titles & {"image", "title"}


def test_identifiers_follow_from_the_name_alone(charts: dict[str, Drawing]) -> None:
    (one,) = draw(charts["search"], "search", WIDE, "svg")
    (two,) = draw(charts["search"], "search", WIDE, "svg")
    assert one == two
    ids = [e.get("id") for e in ET.fromstring(inline(one, "a-wide")).iter() if e.get("id")]  # noqa: S314
    assert ids
    assert all(key.startswith("a-wide_") for key in ids if key)


@pytest.mark.slow
def test_another_process_draws_the_same_bits(charts: dict[str, Drawing]) -> None:
    code = (
        "import hashlib; from merging.benchmarking.results import Benchmark; from merging.drawing import WIDE, draw; "
        "from merging.benchmarking.rendering.pictures import drawings; "
        f"made = drawings(Benchmark.read({str(RESULTS)!r})); "
        "files = [f for n in ('forest', 'scatter') for f in draw(made[n], n, WIDE, 'svg', 'png')]; "
        "print(hashlib.sha256(b''.join(files)).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    files = [file for name in ("forest", "scatter") for file in draw(charts[name], name, WIDE, "svg", "png")]
    assert ran.stdout.strip() == hashlib.sha256(b"".join(files)).hexdigest()


def test_the_scripts_can_stand_in_a_page() -> None:
    text = scripts()
    assert "vegaEmbed" in text
    assert "</script" not in text
    assert text == scripts()
