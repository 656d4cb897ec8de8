"""Reports read back, of earlier versions too; values as data frames, and as figures that pyplot does not know."""

from __future__ import annotations

import base64
import builtins
import json
import pickle
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import merging
from merging.benchmarking.results import Benchmark
from merging.drawing import Picture
from merging.errors import FolderError, OptionError, RequirementError, UnknownNameError
from merging.partitioners.layer import Layer
from merging.storage.pool import ModelPool
from merging.testing.fixtures import tiny_task
from merging.values.told import COLUMNS
from merging.values.verdict import Standing, distinct

EARLIER = sorted((Path(__file__).parent / "reports").glob("*.json"))
"""Reports that earlier versions have written, the oldest first."""
PACS = Path(__file__).parents[2] / "docs/results/pacs/bench_0/benchmark.json"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> merging.Result:
    from merging.testing import tiny_pool

    folder = tmp_path_factory.mktemp("run")
    pool = tiny_pool(folder / "pool")
    return merging.merge(pool, merging.Greedy(), task=tiny_task(), partitioner=Layer(), output=folder / "out")


@pytest.fixture(scope="module")
def found() -> Benchmark:
    return Benchmark.read(PACS)


@pytest.fixture(scope="module")
def looked(pool: ModelPool) -> merging.Inspection:
    return merging.inspect_pool(pool, Layer(), task=tiny_task())


@pytest.fixture(scope="module")
def line(pool: ModelPool) -> merging.Interpolation:
    return merging.interpolate(ModelPool(pool.checkpoints[:2]), tiny_task(), steps=4, tests=True)


@pytest.mark.parametrize("path", EARLIER, ids=lambda path: path.stem)
def test_a_report_of_an_earlier_version_is_read(path: Path) -> None:
    data = json.loads(path.read_bytes())
    report = merging.Report.from_json(path)
    assert report == merging.Report.from_json(data)
    assert report.status == data["status"] == "finished"
    assert [row.tests for row in report.rows] == [row["tests"] for row in data["rows"]]
    told = {verdict.set: verdict for verdict in report.verdicts}
    for name, pair in data.get("paired", {}).items():
        assert (told[name].p, told[name].difference) == (pair["p_value"], pair["difference"])
    assert {verdict["set"] for verdict in data.get("verdicts", ())} | set(data.get("paired", ())) == set(told)
    assert report.saved == "greedy"
    again = merging.Report.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report


@pytest.mark.parametrize("objective", ["nll", "accuracy"])
def test_tests_of_an_earlier_version_were_accuracies(objective: str) -> None:
    data = json.loads(EARLIER[1].read_bytes()) | {"objective": objective}
    report = merging.Report.from_json(data)
    merged = report.merged
    assert merged is not None
    assert (merged.tests if objective == "accuracy" else merged.accuracies)["test"] == data["tests"]["test"]["merged"]
    assert report.verdicts[1].extra == (objective != "accuracy")


def test_a_report_comes_back_as_it_was(result: merging.Result) -> None:
    folder = result.folder
    assert folder is not None
    for where in (result.report.to_json(), folder, str(folder), folder / "report.json"):
        assert merging.Report.from_json(where) == result.report


@pytest.mark.parametrize("text", ["", "[]", "3", '{"rows": []}', '{"status": 3}', "\x00", '{"a":' * 9000])
def test_what_is_no_report_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(FolderError, match=r"report\.json is no run's report, or damaged: ") as caught:
        merging.Report.from_json(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(FolderError, match="there is no report at"):
        merging.Report.from_json(tmp_path / "nowhere.json")


def test_the_frame_of_a_report_holds_what_its_verdicts_say(result: merging.Result) -> None:
    report, table = result.report, result.to_frame()
    pd.testing.assert_frame_equal(table, report.to_frame())
    assert set(table["set"]) == {
        "held-out",
        *report.rows[0].tests,
        *(["average of shifts"] if len(report.shifts) > 1 else []),
    }
    asked = table[table["strategy"] == report.strategy].set_index("set")
    for verdict in distinct(report.verdicts):
        row = asked.loc[verdict.set]
        assert (row["difference"], row["p"], row["p_alone"]) == (verdict.difference, verdict.corrected, verdict.p)
        assert (row["low"], row["high"]) == verdict.interval
    assert set(table[table["strategy"] == "best"]["standing"]) == {Standing.REFERENCE}
    assert set(table[table["strategy"] == "uniform"]["standing"]) == {Standing.NOT_TESTED}
    scores = table.pivot_table(index="set", columns="strategy", values="score")
    assert scores.loc["test", "greedy"] == report.written.tests["test"]  # type: ignore[union-attr]
    assert set(COLUMNS) < set(table.columns)


@pytest.mark.parametrize("path", EARLIER, ids=lambda path: path.stem)
def test_frames_of_several_shifted_sets_have_their_average(path: Path) -> None:
    report = merging.Report.from_json(path)
    table = report.to_frame()
    means = table[table["set"] == "average of shifts"].set_index("strategy")["score"]
    assert dict(means) == {row.strategy: row.shifted for row in report.rows}
    asked = table[table["strategy"] == "greedy"].set_index("set")["standing"]
    told = {verdict.set for verdict in report.verdicts if verdict.tested}  # earlier versions did not test the average
    assert {name for name in asked.index if asked[name] != "not tested"} == told


def test_the_frame_of_a_benchmark(found: Benchmark) -> None:
    table = found.to_frame()
    assert len(table) == len(found.rows) * len(found.columns)
    for row in found.rows:
        for column in found.columns:
            cell = table[(table["row"] == row.label) & (table["set"] == column)].iloc[0]
            assert cell["score"] == row.value(column)
            verdict = row.verdict("best", column)
            if verdict is not None:
                assert cell["p"] == verdict.corrected
                assert cell["against"] == "best"
    other = found.to_frame("greedy")
    assert set(other["against"].dropna()) == {"greedy"}
    with pytest.raises(UnknownNameError, match="unknown row to compare with: 'gredy'; did you mean 'greedy'"):
        found.to_frame("gredy")
    broken = replace(found.rows[0], held_out=None, tests={}, why="it failed")
    table = replace(found, rows=(broken,)).to_frame()
    assert len(table) == 1
    assert table["score"].isna().all()


def test_frames_of_recipes_and_ensembles(result: merging.Result) -> None:
    recipe = result.recipe
    table = recipe.to_frame().pivot_table(index="ingredient", columns="component", values="coefficient", sort=False)
    np.testing.assert_array_equal(table[list(recipe.partition.names)].to_numpy(), recipe.coefficients)
    ensemble = merging.Ensemble((recipe, recipe), (1.0, 2.0))
    assert list(ensemble.to_frame()["weight"]) == [1.0, 2.0]
    assert list(ensemble.to_frame()["models"]) == [len(recipe.names)] * 2


def test_frames_of_an_inspection(looked: merging.Inspection) -> None:
    geometry = looked.geometry
    assert geometry is not None
    components = looked.to_frame()
    assert list(components["component"]) == list(looked.partition.names)
    assert list(components["spread"]) == list(geometry.spread)
    models = looked.to_frame("models")
    assert tuple(models["score"]) == looked.scores
    pairs = looked.to_frame("pairs")
    assert len(pairs) == len(looked.pool) * (len(looked.pool) - 1) // 2
    assert pairs["barrier"].notna().sum() == len(looked.barriers)
    assert pairs["distance"].iloc[0] == geometry.distances[0, 1] / geometry.norm
    with pytest.raises(UnknownNameError, match="did you mean 'pairs'"):
        looked.to_frame("pair")


def test_the_frame_of_a_line_and_its_intervals(line: merging.Interpolation) -> None:
    table = line.to_frame()
    assert len(table) == len(line.scores) * len(line.shares)
    assert (table["low"] <= table["score"]).all()
    assert (table["score"] <= table["high"]).all()
    other = replace(line, objective="nll")
    assert other.intervals() == ()
    assert other.to_frame()["low"].isna().all()


def test_without_pandas_it_says_what_to_install(result: merging.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for made in (result, result.report, result.recipe):
        with pytest.raises(RequirementError, match="a data frame needs pandas: pip install pandas"):
            made.to_frame()


FIGURES: dict[str, Callable[..., Picture]] = {
    "result": lambda result, **_: result.plot(),
    "report": lambda result, **_: result.report.plot(),
    "benchmark": lambda found, **_: found.plot(),
    "scatter": lambda found, **_: found.plot("scatter"),
    "search": lambda found, **_: found.plot("search"),
    "coefficients": lambda found, **_: found.plot("coefficients", "wise-ft"),
    "forest": lambda found, **_: found.plot("forest"),
    "distances": lambda looked, **_: looked.plot(),
    "cosines": lambda looked, **_: looked.plot("cosines"),
    "line": lambda line, **_: line.plot(),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_shown_saved_and_forgotten(
    name: str,
    result: merging.Result,
    found: Benchmark,
    looked: merging.Inspection,
    line: merging.Interpolation,
    tmp_path: Path,
) -> None:
    figure = FIGURES[name](result=result, found=found, looked=looked, line=line)
    data, sizes = figure._repr_mimebundle_()
    (kind,) = set(data) - {"image/png"}
    assert kind.startswith("application/vnd.vegalite.v")
    assert data[kind] == figure.to_dict()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert sizes["image/png"]["width"] == 740
    assert figure.save(tmp_path / "figure.svg").read_text(encoding="utf-8") == figure.svg()
    assert json.loads(figure.save(tmp_path / "figure.json").read_bytes()) == figure.to_dict()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "figure.json", tmp_path / "figure.svg"]
    assert pickle.loads(pickle.dumps(figure)).svg() == figure.svg()  # noqa: S301 (our own)


def test_a_picture_that_cannot_be_saved_is_one_line(line: merging.Interpolation, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a picture as line\.pdf: the name ends with \.svg, \.png, \.json"):
        line.plot().save(tmp_path / "line.pdf")
    with pytest.raises(FolderError, match=r"cannot write to .*: No such file or directory"):
        line.plot().save(tmp_path / "nowhere" / "line.svg")


def values(picture: Picture, *fields: str) -> list[tuple[Any, ...]]:
    """The values of those rows of a picture's data that have all of some fields."""
    spec = picture.to_dict()
    found = [*spec.get("datasets", {}).values(), spec.get("data", {}).get("values", [])]
    found += [layer.get("data", {}).get("values", []) for layer in spec["layer"]]
    return [tuple(row[field] for field in fields) for rows in found for row in rows if set(fields) <= set(row)]


def test_the_band_of_a_line_is_as_high_as_its_intervals(line: merging.Interpolation) -> None:
    told = {(100 * low, 100 * high) for name in line.scores for low, high in line.intervals(name)}
    assert set(values(line.plot(), "low", "high")) == told
    assert not values(replace(line, objective="nll").plot(), "low", "high")


def test_a_forest_draws_each_interval(result: merging.Result) -> None:
    told = {tuple(100 * end for end in v.interval) for v in distinct(result.report.verdicts) if v.interval}
    assert told
    assert told <= set(values(result.plot(), "x_low", "x_high"))


def test_nothing_to_draw_is_one_line(result: merging.Result, found: Benchmark, looked: merging.Inspection) -> None:
    with pytest.raises(OptionError, match="nothing to draw: the report compares nothing"):
        replace(result.report, verdicts=()).plot()
    with pytest.raises(UnknownNameError, match="unknown picture of this benchmark: 'scater'; did you mean 'scatter'"):
        found.plot("scater")
    with pytest.raises(UnknownNameError, match="unknown method with coefficients: 'best'"):
        found.plot("coefficients", "best")
    with pytest.raises(OptionError, match="nothing to draw: no method"):
        replace(found, rows=(), singles=()).plot()
    with pytest.raises(UnknownNameError, match="did you mean 'distances'"):
        looked.plot("distance")
    with pytest.raises(OptionError, match="nothing to draw: 0 models without distances"):
        replace(looked, geometry=None, pool=()).plot()
    with pytest.raises(OptionError, match="cosines are of the differences from the base"):
        replace(looked, geometry=replace(looked.geometry, cosines=None)).plot("cosines")  # type: ignore[type-var]


def test_nothing_that_draws_is_loaded_before_something_is_drawn() -> None:
    code = (
        "import sys, merging; from pathlib import Path; from merging.cli.main import main; "
        f"str(merging.Benchmark.read(Path({str(PACS)!r}))); "
        "print([name for name in ('altair', 'vl_convert', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_short_search_has_ticks_that_are_numbers(found: Benchmark) -> None:
    row = next(row for row in found.rows if row.trace)
    short = replace(row, trace=tuple((float(cost), *row.trace[0][1:]) for cost in (1, 2, 7)), forward_equivalents=7.0)
    drawn = ET.fromstring(replace(found, rows=(short,)).plot("search").svg())  # noqa: S314 (our own)
    told = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"1", "2", "5"} <= told
