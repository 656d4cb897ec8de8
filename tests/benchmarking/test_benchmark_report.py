"""What a benchmark shows: tables, pictures, the page in a browser, the terminal; ``merge report``; the line between."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from merging import Best, Greedy, Layer, Learned, ManifoldMix, Uniform
from merging.benchmarking.reading import read_folder
from merging.benchmarking.rendering.answer import answer
from merging.benchmarking.rendering.documents import to_csv, to_latex, to_markdown
from merging.benchmarking.rendering.forms import render
from merging.benchmarking.rendering.tables import cells, heading
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow
from merging.benchmarking.runner import benchmark
from merging.benchmarking.side_by_side import combine
from merging.cli.showing.benchmark_view import show_benchmark
from merging.cli.showing.scatter import scatter
from merging.errors import FolderError
from merging.looking.interpolation import interpolate
from merging.optimizers.random import Random
from merging.storage.pool import ModelPool
from merging.strategies.ensemble import OutputEnsemble
from merging.strategies.wise_ft import WiseFt
from merging.testing import TinyNet, tiny_task
from merging.testing.fixtures import open_tiny_pool
from merging.values.recipe import Recipe
from merging.values.states import MethodState
from merging.values.verdict import difference, mark, p_value
from tests.benchmarking.reading_pages import Read
from tests.conftest import TASK, Merge

NASTY = "odd & <b>name</b>, 50 % $x$ | a_b"
MAPS_OF_IT = ("coefficients-manifoldmix", "coefficients-learned")


@pytest.fixture(scope="module")
def found(pool_folder: Path) -> Benchmark:
    """A real benchmark, with a method that failed and a name that every format must escape."""
    pool = open_tiny_pool(pool_folder, base=False)
    methods = {
        "best": Best(),
        "uniform": Uniform(),
        NASTY: Greedy(),
        "manifoldmix": ManifoldMix(budget=12),
        "learned": Learned(epochs=2),
        "ensemble": OutputEnsemble(),
        "wise-ft": WiseFt(),
    }
    return benchmark(
        pool, methods, task=tiny_task(), partitioners=[Layer()], optimizer=Random(), seeds=(0, 1), command="merge <x>"
    )


@pytest.fixture(scope="module")
def folder(found: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("rendered")
    files = render(found, place)
    assert all(file.stat().st_size > 0 for file in files)
    return place


def test_json_comes_back_as_it_was(found: Benchmark, folder: Path) -> None:
    assert Benchmark.read(folder / "benchmark.json").dumps() == found.dumps()
    data = json.loads((folder / "benchmark.json").read_text())
    assert [row["strategy"] for row in data["rows"]][:3] == ["best", "uniform", "greedy"]


def test_ranks_are_among_single_models(found: Benchmark) -> None:
    for column in found.columns:
        ranked = [scores[column].rank for scores in cells(found)]
        values = [row.value(column) for row in found.rows]
        single = [v for row, v in zip(found.rows, values, strict=True) if v is not None and row.inference_cost == 1]
        first, *rest = sorted(set(single), reverse=True)
        for row, value, rank in zip(found.rows, values, ranked, strict=True):
            expected = 0 if row.inference_cost > 1 else 1 if value == first else 2 if [value] == rest[:1] else 0
            assert rank == expected, (row.label, column)


def test_what_is_not_significant_is_shown_as_such(found: Benchmark) -> None:
    for row, scores in zip(found.rows, cells(found), strict=True):
        for column, cell in scores.items():
            assert cell.mark == mark(row.verdict("best", column))
    assert answer(found).standing == "neither"
    told = found.rows[3].verdict("best", "test")
    assert told is not None
    sure = replace(told, difference=0.2, p=1e-6, corrected=1e-5)
    row = replace(found.rows[3], verdicts=(sure,))
    changed = replace(found, rows=(*found.rows[:3], row, *found.rows[4:]))
    name = found.rows[0].ingredients[0]
    assert answer(changed).headline.startswith("▲ at home manifoldmix +20.0 [")
    assert f"the best single model ({name})" in answer(changed).headline
    assert cells(changed)[3]["test"].mark == "▲"


def test_the_spread_over_seeds_is_shown(found: Benchmark) -> None:
    row = replace(found.rows[3], seeds=(0, 1), spread={"test": 0.0123, SHIFTED: 0.0})
    spread = replace(found, rows=(*found.rows[:3], row, *found.rows[4:]))
    for text in (shown(spread, 120), to_markdown(spread), to_latex(spread)):
        assert text.count("sd 1.23") == 1
        assert "sd 0.00" not in text, "where the seeds agree, nothing is said"


def test_csv_is_read_back(found: Benchmark) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [line["method"] for line in lines] == [row.label for row in found.rows]
    for line, row in zip(lines, found.rows, strict=True):
        for column in found.columns:
            value = row.value(column)
            assert (float(line[column]) if line[column] else None) == value
        assert line["status"] == row.status
    assert float(lines[1]["test minus best"]) == found.rows[1].verdict("best", "test").difference  # type: ignore[union-attr]


def test_markdown_tables_are_whole(found: Benchmark) -> None:
    lines = to_markdown(found).splitlines()
    widths: list[int] = []
    for line in lines:
        if line.startswith("|"):
            widths.append(len(re.split(r"(?<!\\)\|", line)))
        else:
            assert len(set(widths)) <= 1, line
            widths = []
    assert sum(line.startswith("| ") for line in lines) >= 3 * len(found.rows) - 3
    assert "\\| a_b" in "\n".join(lines)


def test_latex_is_balanced_and_escaped(found: Benchmark) -> None:
    text = to_latex(found)
    assert r"odd \& <b>name</b>, 50 \% \$x\$ | a\_b" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(found.rows)
    columns = text.partition(r"\begin{tabular}{")[2].partition("}")[0]
    for line in body:
        cells_of = re.split(r"(?<!\\)&", line)
        spanned = re.search(r"\\multicolumn\{(\d+)\}", line)
        assert len(cells_of) + (int(spanned[1]) - 1 if spanned else 0) == len(columns)


def test_pictures_are_drawn(found: Benchmark, folder: Path) -> None:
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == [
        "coefficients-learned.png",
        "coefficients-learned.svg",
        "coefficients-manifoldmix.png",
        "coefficients-manifoldmix.svg",
        "forest.png",
        "forest.svg",
        "scatter.png",
        "scatter.svg",
        "search.png",
        "search.svg",
    ]
    for name in names:
        path = folder / "pictures" / name
        if path.suffix == ".png":
            pixels = np.asarray(Image.open(path).convert("L"))
            assert pixels.shape[0] > 200
            assert (pixels < 200).mean() > 0.005, "something is drawn"
        else:
            ET.fromstring(path.read_text())  # noqa: S314 (our own file)
    drawn = ET.fromstring((folder / "pictures/scatter.svg").read_text())  # noqa: S314
    texts = {"".join(element.itertext()).strip() for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    labels = {row.label for row in found.rows if row.finished}
    assert labels <= texts, "every method stands beside its point"


def test_rendering_again_gives_the_same_bits(found: Benchmark, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/coefficients-old.png").touch()
    (tmp_path / "pictures/mine.png").touch()
    for path in render(found, tmp_path):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes(), path.name
    left = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert "coefficients-old.png" not in left
    assert "mine.png" in left


def test_the_page_stands_alone(found: Benchmark, folder: Path) -> None:
    text = (folder / "benchmark.html").read_text(encoding="utf-8")
    read = Read.of(text)
    assert "odd &amp; &lt;b&gt;name&lt;/b&gt;" in text
    assert "<b>name</b>" not in text
    assert "cannot run: strategy &#39;wise-ft&#39; needs base" in text
    assert [figure["id"] for figure in read.figures] == ["forest", "scatter", *MAPS_OF_IT, "search"]
    assert "#fefefe" not in text.partition("</style>")[2], "pictures follow the page's colours"


def shown(found: Benchmark, width: int, *, terminal: bool = False, colour: bool = False) -> str:
    out = io.StringIO()
    system = "truecolor" if terminal and colour else None
    console = Console(
        file=out, width=width, force_terminal=terminal, color_system=system, no_color=not colour, legacy_windows=False
    )  # type: ignore[call-overload]
    show_benchmark(console, found)
    return out.getvalue()


@pytest.mark.parametrize("width", [36, 60, 80, 100, 200])
def test_no_number_is_cut_at_any_width(found: Benchmark, width: int) -> None:
    """What conclusions are drawn from stays, each difference beside its p; half intervals leave before the costs."""
    text = shown(found, width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    flat = " ".join(text.split())
    without = re.search(r"\(no room: (.*?); see --json\)", flat)
    gone = without[1].split(", ") if without else []
    for scores in cells(found):
        for column, cell in scores.items():
            assert heading(found, column) in gone or cell.text in text
            assert column not in ("test", SHIFTED) or not cell.half or width < 120 or f"±{cell.half}" in text
    for row in found.rows:
        for column in ("test", SHIFTED):
            told = row.verdict("best", column)
            if told is not None:
                assert f"{mark(told)} {difference(told)} {p_value(told.corrected)}" in flat
    for column in ("test", "held-out", "average"):
        assert column in text
        assert column not in gone
    for word in ("best", "Against the best single model", "A best", "·"):
        assert word in text
    for word in (*found.sets, "evals", "fwd-eq"):
        assert word in text, "in the table, or among what has no room"


def test_colours_only_where_they_are_wanted(found: Benchmark) -> None:
    assert "\x1b[1m" in shown(found, 100, terminal=True, colour=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown(found, 100, terminal=True)), "NO_COLOR: bold, no colours"


def test_a_scatter_keeps_every_point() -> None:
    draw = np.random.default_rng(0)
    points = [
        (float(x), float(y), letter)
        for x, y, letter in zip(draw.normal(size=20), draw.normal(size=20), "ABCDEFGHIJKLMNOPQRST", strict=True)
    ]
    for width in (24, 40, 90):
        lines = scatter(points, width=width, height=12, across="x", up="y")
        assert all(len(line) <= width for line in lines)
        body = "".join(line.partition("│")[2] + line.partition("┤")[2] for line in lines[1:-2])
        assert sorted(re.sub(r"\W", "", body)) == sorted("ABCDEFGHIJKLMNOPQRST")
    crowded = scatter([(1.0, 2.0, letter) for letter in "ABCD"], width=24, height=4, across="x", up="y")
    assert all(any(letter in line for line in crowded) for letter in "ABCD")


def test_a_mark_that_stands_alone_is_the_number_itself() -> None:
    for value in (-0.1435, 0.857, 53.61):
        lines = scatter([(0, value, "A"), (1, value + abs(value) / 1000, "B")], width=60, height=4, across="x", up="y")
        labels = [line.partition("┤")[0].strip() for line in lines if "┤" in line]
        assert labels
        assert all(abs(float(label) - value) <= abs(value) / 500 for label in labels)


def test_report_renders_a_benchmark_again(merge: Merge, found: Benchmark, folder: Path, tmp_path: Path) -> None:
    ran = merge("report", folder, "--output", tmp_path / "again")
    assert ran.code == 0, ran.err
    for name in ("benchmark.json", "benchmark.csv", "benchmark.html", "pictures/scatter.svg"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    assert "best single model" in ran.out
    assert merge("report", folder, "--json").out == found.dumps()


def told(data: dict[str, Any], name: str) -> dict[str, Any]:
    """A verdict of a report, or of a benchmark's row, on a set."""
    return next(verdict for verdict in data["verdicts"] if verdict["set"] == name)


def test_report_compares_runs_and_benchmarks(merge: Merge, pool_folder: Path, folder: Path) -> None:
    models = ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--partitioner", "layer"]
    assert merge("run", *models, "--budget", "12", "--output", "mixed").code == 0
    assert merge("run", *models, "--strategy", "learned", "-o", "strategy.epochs=1", "--output", "learnt").code == 0
    ran = merge("report", "mixed", "learnt", "--output", "both")
    assert ran.code == 0, ran.err
    data = json.loads(Path("both/benchmark.json").read_text())
    assert [row["label"] for row in data["rows"]] == ["best", "uniform", "greedy", "manifoldmix", "learned"]
    report = json.loads(Path("mixed/report.json").read_text())
    mixed = data["rows"][3]
    assert mixed["held_out"] == report["validation"]["merged"]
    assert told(mixed, "test")["p"] == told(report, "test")["p"]
    assert "not tested: best" not in ran.out
    assert told(mixed, "test")["tests"] == 4, "two methods on test and the average of shifts: one family"
    assert {v["verdict"] for row in data["rows"][1:3] for v in row["verdicts"]} == {"not tested"}
    assert "in a row above, as the same model: best [learnt], uniform [learnt], greedy [learnt]" in " ".join(
        ran.out.split()
    )
    assert mixed["coefficients"]["components"] == ["fc1", "fc2"], "inert ones are left out"
    assert Path("both/pictures/scatter.png").exists()
    ran = merge("report", "mixed", "learnt", folder)
    assert ran.code == 0
    assert f"manifoldmix [{folder.name}]" in ran.out.replace("\n", " ") or "manifoldmix" in ran.out
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    for arguments, said in (
        (["gone"], "there is no folder gone"),
        (["full"], "holds no finished run and no benchmark"),
        (["mixed", "mixed"], "named twice"),
        (["mixed", "--output", "full"], "other files"),
        (["mixed", "both", "--output", "both"], "one of the folders that are compared"),
        (["--published", "x.json", "--output", "full"], "no such results file"),
    ):
        ran = merge("report", *arguments)
        assert (ran.code, ran.out) == (2, ""), arguments
        assert said in ran.err
    Path("mixed/report.json").write_text('{"rows": []}')
    ran = merge("report", "mixed")
    assert ran.code == 2
    assert "is damaged" in ran.err


def test_combining_tells_what_differs(found: Benchmark) -> None:
    other = replace(found, task="others", pool=found.pool[1:], rows=tuple(replace(r, held_out=0.1) for r in found.rows))
    both = combine({"a": found, "b": other})
    assert len(both.rows) == 2 * len(found.rows)
    assert {"best [a]", "best [b]"} <= {row.label for row in both.rows}
    assert any("differ in task" in note for note in both.notes)
    assert any("differ in pool" in note for note in both.notes)
    assert len(combine({"a": found, "b": found}).rows) == len(found.rows), "the same rows once"


def test_methods_that_gave_one_model_stay_rows_of_their_own(found: Benchmark) -> None:
    """Only one method's model is shown once: the best single model is not compared with itself."""
    same = tuple(
        replace(row, digest="one", held_out=0.8, tests=found.rows[0].tests, spread={}) if row.finished else row
        for row in found.rows
    )
    untested = replace(found, rows=tuple(replace(row, tests={}, verdicts=row.verdicts[:1]) for row in same))
    for parts in ({"a": replace(found, rows=same), "b": untested}, {"b": untested, "a": replace(found, rows=same)}):
        both = combine(parts)
        assert [row.label for row in both.rows] == [row.label for row in found.rows]
        assert not any(v.reference == "best" for v in both.rows[0].verdicts)
        assert [{v.tests for v in row.verdicts} for row in both.rows] == [
            {v.tests for v in row.verdicts} for row in found.rows
        ]
        assert [row.tests for row in both.rows] == [row.tests for row in same], "a run may leave test sets out"
    mean = replace(found, seeds=(0,), rows=tuple(replace(r, seeds=(0,)) if r.spread else r for r in found.rows))
    again = combine({"a": found, "b": mean})
    moved = sum(bool(row.spread) and any(row.spread.values()) for row in found.rows)
    assert len(again.rows) == len(found.rows) + moved, "a mean over seeds is no single model"


def test_a_score_without_a_test_is_marked_so(found: Benchmark) -> None:
    """Runs of earlier versions did not test the average of the shifted sets: that is no missing sign."""
    rows = tuple(replace(r, verdicts=tuple(v for v in r.verdicts if v.set != SHIFTED)) for r in found.rows)
    old = replace(found, rows=rows)
    for row, cell in zip(old.rows, cells(old), strict=True):
        if row.finished:
            reference = row.strategy == "best"
            assert (cell[SHIFTED].mark, cell[SHIFTED].word) == (("", "reference") if reference else ("–", "not tested"))
    for line in csv.DictReader(io.StringIO(to_csv(replace(old, rows=rows[1:2])))):
        assert line[f"{SHIFTED} verdict against best"] == "not tested"


def test_without_shifts_and_without_anything(found: Benchmark, tmp_path: Path) -> None:
    samples = {name: found.samples[name] for name in ("held-out", "test")}
    rows = tuple(
        replace(
            row,
            shifted=None,
            tests={k: v for k, v in row.tests.items() if k == "test"},
            verdicts=tuple(v for v in row.verdicts if v.set in samples),
        )
        for row in found.rows
    )
    plain = replace(found, shifts=(), samples=samples, rows=rows, singles=())
    render(plain, tmp_path / "plain")
    assert not (tmp_path / "plain/pictures/scatter.png").exists()
    assert SHIFTED not in plain.columns
    assert "single models" not in shown(plain, 80).partition("Against")[2].splitlines()[-1]
    broken = BenchmarkRow(strategy="greedy", label="greedy", status=MethodState.FAILED, why="broken")
    nothing = replace(found, rows=(broken,), singles=())
    render(nothing, tmp_path / "nothing")
    assert "failed: broken" in (tmp_path / "nothing/benchmark.html").read_text()
    assert "broken" in shown(nothing, 80)


def test_a_full_disk_leaves_what_was_there(found: Benchmark, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(path: Path, *rest: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("merging.storage.atomic.put", full)
    with pytest.raises(FolderError, match="No space left"):
        render(found, folder)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_read_folder_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text('{"format": "merging-benchmark/1"}')
    with pytest.raises(FolderError, match="damaged: KeyError"):
        read_folder(tmp_path)
    (tmp_path / "benchmark.json").write_text('{"format": "other/9"}')
    with pytest.raises(FolderError, match="other/9"):
        read_folder(tmp_path)


def test_the_line_is_what_its_points_score(pool_folder: Path) -> None:
    """Against models mixed by hand; the barrier against Frankle et al.'s definition."""
    pool = open_tiny_pool(pool_folder, base=False)
    two = ModelPool([pool.checkpoints[0], pool.checkpoints[3]])
    task = tiny_task()
    found = interpolate(two, task, steps=4, tests=True)
    assert found.shares == (0.0, 0.25, 0.5, 0.75, 1.0)
    states = [{name: c.read(name) for name in c.tensors} for c in two.checkpoints]
    for name, split in {"held-out": task.held_out, **task.tests}.items():
        for share, score in zip(found.shares, found.scores[name], strict=True):
            model = TinyNet()
            state = {
                k: ((1 - share) * a.double() + share * states[1][k].double()).to(a.dtype) for k, a in states[0].items()
            }
            model.load_state_dict(state)
            with torch.inference_mode():
                right = (model(split.inputs).argmax(1) == split.labels).double().mean()
            assert score == pytest.approx(float(right), abs=1e-12), (name, share)
    values = (0.9, 0.5, 0.8)
    made = replace(found, shares=(0.0, 0.5, 1.0), scores={"held-out": values})
    assert made.barrier() == pytest.approx(0.85 - 0.5)
    assert made.best() == (0.0, 0.9)
    assert replace(made, scores={"held-out": (0.5, 0.9, 0.6)}).barrier() == 0.0
    assert isinstance(Recipe.single(two.ingredients[0], Layer().split(two.tensors)), Recipe)


def test_inspect_interpolates(merge: Merge, pool_folder: Path) -> None:
    flags = ["inspect", "--models", str(pool_folder / "model_*.safetensors"), "--task", TASK]
    ran = merge(*flags, "--interpolate", "model_0", "model_2", "--steps", "5", "--plot", "line.svg")
    assert ran.code == 0, ran.err
    assert "barrier" in ran.out
    assert "from model_0 (A) to model_2 (B)" in ran.out
    ET.fromstring(Path("line.svg").read_text())  # noqa: S314
    first, second = pool_folder / "model_0.safetensors", pool_folder / "model_2.safetensors"
    ran = merge("inspect", "--task", TASK, "--interpolate", first, second, "--tests", "--json")
    data = json.loads(ran.out)
    assert set(data["scores"]) == {"held-out", "test", "shifted"}
    assert len(data["shares"]) == 11
    for arguments, said in (
        (["--interpolate", "model_0", "model_9"], "did you mean"),
        (["--interpolate", "model_0", "model_0"], "the same model"),
        (["--interpolate", "model_0", "model_1", "--steps", "1"], "no curve"),
        (["--interpolate", "model_0", "model_1", "--plot", "line.pdf"], "ends with .png or .svg"),
        (["--interpolate", "model_0", "model_1", "--plot", "no/line.png"], "no folder"),
        (["--interpolate", "model_0", "model_1", "--barriers", "all"], "does nothing"),
        (["--interpolate", "model_0", "model_1", "--tensors"], "does nothing"),
        (["--steps", "3"], "belongs to --interpolate"),
        (["--plot", "x.png"], "belongs to --interpolate"),
    ):
        ran = merge(*flags, *arguments)
        assert (ran.code, ran.out) == (2, ""), arguments
        assert said in ran.err.splitlines()[-1]
