"""What commands show fits the screen: no table in two parts, no number cut, every name still told from the others."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow
from merging.cli.showing.benchmark_view import _scores, show_benchmark
from merging.cli.showing.entries import laid
from merging.cli.showing.folding import cut, folded, wrapped
from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.pool import _answer
from merging.cli.showing.screen import Screen, notes
from merging.looking.inspection import Barrier, Inspection
from merging.values.partition import Component, Partition
from merging.values.statistics import PairedTest
from merging.values.verdict import Family, Role, Verdict, compact, corrected
from merging.values.wording import alike
from tests.conftest import TASK, Merge

LETTERS = st.sampled_from("abcdefgXYZ0123456789_-.[] é模型ø")
names = st.text(LETTERS, min_size=1, max_size=60).map(str.strip).filter(bool)
HOSTILE = (
    "[red]x",
    "a model with spaces in its very long name which goes on and on and on",
    "日本語のモデル名はとても長いので切れるかもしれません",
    "emoji😀model",
    "esc\x1b[2Jape",
    "-dash",
    "{}",
)


@given(st.lists(names, min_size=1, max_size=9), st.integers(8, 80))
@example(["a" * 40 + "1" + "b" * 40, "a" * 40 + "2" + "b" * 40], 9)
def test_folded_names_fit_and_differ(called: list[str], room: int) -> None:
    shown = folded(called, room)
    assert all(cell_len(text) <= room for text in shown)
    assert len(set(shown)) == len(set(called)), "two models are never shown as one"
    assert [text for text, name in zip(shown, called, strict=True) if cell_len(name) <= room] == [
        name for name in called if cell_len(name) <= room
    ] or any(":" in text for text in shown)


@given(st.lists(names, min_size=1, max_size=12), st.integers(10, 60))
def test_a_sentence_is_broken_between_its_words_alone(words: list[str], width: int) -> None:
    sentence = " ".join("".join(word.split()) for word in words)
    lines = [line.plain for line in wrapped(Text(sentence), width)]
    assert " ".join(lines) == sentence
    assert all(cell_len(line) <= width or " " not in line for line in lines)
    assert cell_len(cut(sentence, width)) <= width


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    called = draw(st.lists(names, min_size=1, max_size=12, unique=True))
    heads = draw(st.lists(names, min_size=1, max_size=12, unique_by=lambda head: head.split()[0][:1] + head))
    columns, generator = [], np.random.default_rng(draw(st.integers(0, 99)))
    for head in heads:
        cells = [Text(f"{value:.2f} ▲") for value in generator.uniform(-99, 99, len(called))]
        short = [Text(cell.plain.split()[0]) for cell in cells] if draw(st.booleans()) else []
        columns.append(Column(head=head, cells=cells, short=short, rank=draw(st.integers(0, 4))))
    return Grid(names=[Text(name) for name in called], columns=columns, elsewhere="there", turns=draw(st.booleans()))


@given(grids(), st.integers(36, 200))
def test_a_table_fits_the_screen_whole(grid: Grid, width: int) -> None:
    """Every number of a column that is not said to be left out stands in one line with its row, whole."""
    lines = [line.plain for line in grid.lines(width)]
    assert max(map(cell_len, lines)) <= width or "(no room:" in " ".join(lines)
    text = "\n".join(lines)
    table, _, gone = text.partition("(no room:")
    assert max(map(cell_len, table.splitlines())) <= width
    out = " ".join(gone.split()).partition("; see there")[0].split(", ")
    for column in grid.columns:
        if " ".join(column.head.split()) in out:
            assert column.rank, "what must stay, stays"
            continue
        for cell in column.cells:
            number = cell.plain.split()[0]
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", table)
    assert bool(gone) == ("; see there)" in " ".join(text.split()))


def benchmark(methods: int, sets: int, length: int) -> Benchmark:
    """Of so many methods on so many shifted sets, with names of that length."""
    generator = np.random.default_rng(methods * sets + length)
    shifts = [f"{'imagenet-variant-of-long-names'[:length]}{number}" for number in range(sets)]
    roles = {"held-out": Role.HELD_OUT, "test": Role.TEST, **dict.fromkeys(shifts, Role.SHIFT), SHIFTED: Role.AVERAGE}

    def verdict(name: str, role: Role) -> Verdict:
        step = float(generator.normal(scale=0.05))
        return Verdict(
            set=name,
            role=role,
            reference="best",
            against="the best single model (m1)",
            measure="accuracy",
            extra=False,
            family=Family.of(role, extra=False),
            difference=step,
            interval=(step - 0.02, step + 0.03),
            p=float(generator.uniform()) ** 6,
            level=0.95,
            tests=1,
            test=PairedTest.NORMAL,
            samples=500,
        )

    told = corrected([tuple(verdict(*each) for each in roles.items()) for _ in range(methods - 1)])
    rows = []
    for number, own in enumerate([(), *told]):
        values = {name: float(generator.uniform(0.2, 0.98)) for name in roles}
        label = f"{'method-with-options-and-a-name-of-its-own'[:length]}-{number}" if number else "best"
        rows.append(
            BenchmarkRow(
                strategy=label,
                label=label,
                held_out=values["held-out"],
                shifted=values[SHIFTED],
                tests={name: values[name] for name in ("test", *shifts)},
                intervals={name: (value - 0.01, value + 0.01) for name, value in values.items()},
                verdicts=own,
                ingredients=("m1",),
                models=1,
                seeds=(0,),
            )
        )
    return Benchmark(
        task="blobs",
        objective="accuracy",
        rows=tuple(rows),
        singles=(),
        samples={name: 500 for name in roles if name != SHIFTED},
        shifts=tuple(shifts),
        pool=("m1", "m2"),
        seeds=(0,),
        measure="accuracy",
    )


def on_screen(width: int, found: Benchmark) -> str:
    screen = Screen()
    screen.file, screen.width = io.StringIO(), width
    show_benchmark(screen, found)
    text: str = screen.file.getvalue()
    return text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize(("methods", "sets", "length"), [(1, 1, 4), (2, 30, 8), (10, 6, 8), (14, 5, 40), (40, 2, 20)])
def test_a_benchmark_fits_the_screen(methods: int, sets: int, length: int, width: int) -> None:
    found = benchmark(methods, sets, length)
    text = on_screen(width, found)
    wide = [line for line in text.splitlines() if cell_len(line) > width]
    assert all(" " not in line.strip() for line in wide), "a word that is longer than the screen stays whole"
    table = "\n".join(line.plain for line in _scores(found, "--json").lines(width))
    assert table in "\n".join(line.rstrip() for line in text.splitlines())
    against = text.partition("\nAgainst ")[2]
    heads = re.findall(r"\bheld-out\b", table)
    assert len(heads) == 1, "the sets are named once: no table comes in two parts"
    for row in found.rows:
        for name in ("held-out", "test"):
            assert f"{100 * (row.value(name) or 0):.2f}" in table
    shown = [" ".join(line.split()) for line in against.splitlines()]
    for row in found.rows[1:]:
        for name in ("test", SHIFTED):
            told = row.verdict("best", name)
            assert told is not None
            assert any(compact(told) in line for line in shown), "a difference, its interval and p are in one line"


def test_the_terminal_of_a_paper_is_as_wide_as_a_page() -> None:
    """Ten methods, a test set, five shifted ones, in 80 columns: every score is there, and below it what each costs."""
    found = benchmark(10, 5, 7)
    lines = [line.plain for line in _scores(found, "benchmark.md").lines(80)]
    rows = [re.findall(r"\d+\.\d\d", line) for line in lines if re.match(r"(best|method)\S* +(\(m1\) +)?\d", line)]
    assert rows == [[f"{100 * (row.value(name) or 0):.2f}" for name in found.columns] for row in found.rows]
    assert " ".join(lines).endswith("(no room: models, evals, fwd-eq, seconds; see benchmark.md)")
    assert "\nevals: best 0, method--1 0, method--2 0, " in on_screen(80, found)


def test_a_cost_stays_before_an_interval() -> None:
    """What a gain costs is part of the answer: where there is no room for both, ± leaves and evaluations stay."""
    found = benchmark(6, 1, 7)
    widths = {width: "\n".join(line.plain for line in _scores(found, "--json").lines(width)) for width in (60, 100)}
    assert ("±" in widths[60], "±" in widths[100]) == (False, True)
    assert all(re.search(r"\bevals\b(?!,)", table.partition("(no room")[0]) for table in widths.values())
    assert "passes" not in widths[100], "no method costs more than one"


def test_few_methods_on_many_sets_stand_side_by_side() -> None:
    lines = [line.plain for line in _scores(benchmark(4, 9, 7), "--json").lines(80)]
    assert [line.split()[0] for line in lines[-4:]] == ["models", "evals", "fwd-eq", "seconds"]
    assert "no room" not in " ".join(lines)


def test_names_of_several_words_take_several_lines() -> None:
    called = ["best individual model", "second best individual model", "uniform"]
    cells = [Text("80.39"), Text("79.89"), Text("1.00")]
    heads = ["IN-Sketch", "ObjectNet", "imagenet-variant-of-long-names"]
    columns = [Column(head=head, cells=cells) for head in heads]
    grid = Grid(names=[Text(name) for name in called], columns=columns, turns=False)
    assert [line.plain for line in grid.lines(54)] == [
        "                                            imagenet-",
        "                                          variant-of-",
        "                    IN-Sketch  ObjectNet   long-names",
        "best individual         80.39      80.39        80.39",
        "  model",
        "second best             79.89      79.89        79.89",
        "  individual model",
        "uniform                  1.00       1.00         1.00",
    ]
    narrow = [line.plain for line in grid.lines(20)]
    assert narrow[:6] == [
        "IN-Sketch",
        "  best individual",
        "    model",
        "    80.39",
        "  second best",
        "    individual model",
    ]


def test_what_is_read_as_one_is_not_broken() -> None:
    said = Text("under shift ▲ greedy +1.42 [+0.02, +2.82] p=.045 at the 5 % level")
    assert [line.plain for line in wrapped(said, 34)] == [
        "under shift ▲ greedy",
        "+1.42 [+0.02, +2.82] p=.045 at the",
        "5 % level",
    ]
    assert [line.plain for line in wrapped(said, 20)] == [
        "under shift ▲ greedy",
        "+1.42 [+0.02, +2.82]",
        "p=.045 at the 5 %",
        "level",
    ]


def test_notes_are_dim_and_said_once() -> None:
    screen = Screen()
    screen.file, screen.width = io.StringIO(), 200
    called = [f"model_{number}" for number in range(72)]
    notes(screen, [f"{name}: class names differ" for name in called], called)
    assert screen.file.getvalue().count("\n") == 1
    assert alike(["a is old", "b is new"], ["a", "b"]) == ["a is old", "b is new"]
    assert alike(["ab is old", "abc is old"], ["ab", "abc"]) == ["ab is old (abc too)"], "names in names"


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of checkpoints, wrapped as trainers leave them: hostile names, one, two, and 72 long ones."""
    place = tmp_path_factory.mktemp("pools")
    generator = torch.Generator().manual_seed(0)
    base = {f"layer{number}.weight": torch.randn(4, 4, generator=generator) for number in range(3)}
    many = [f"model_with_a_very_long_name_that_says_everything_about_it_lr1e-4_run{number}" for number in range(72)]
    for folder, called in {"hostile": HOSTILE, "one": HOSTILE[:1], "two": HOSTILE[:2], "many": many}.items():
        (place / folder).mkdir()
        for name in called:
            state = {f"module.{k}": v + 0.1 * torch.randn(4, 4, generator=generator) for k, v in base.items()}
            torch.save({"state_dict": state, "epoch": 3}, place / folder / f"{name}.pt")
    return place


@pytest.mark.parametrize(
    ("folder", "width"), [("one", 60), ("two", 80), ("hostile", 60), ("hostile", 80), ("hostile", 200), ("many", 80)]
)
def test_a_pool_is_inspected_on_any_screen(
    merge: Merge, monkeypatch: pytest.MonkeyPatch, pools: Path, folder: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ran = merge("inspect", "--models", pools / folder / "*.pt", "--partitioner", "layer")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert all(cell_len(line) <= width or " " not in line for line in ran.out.splitlines())
    count = len(list((pools / folder).iterdir()))
    rows = re.findall(r"^ *\d+ (?!component).*\d\.\d\d % +\d+\.\d\d %$", ran.out, re.MULTILINE)
    assert len(set(rows)) == (count if count > 1 else 0)
    assert ran.out.count("state dict found under") == 1, "72 checkpoints of one trainer are one note"
    flat = " ".join(ran.out.split())
    if count == 72:
        assert "nearest of 2,556 pairs: " in flat
        assert "farthest of 2,556 pairs: " in flat
        assert "all 72 checkpoints: state dict found under 'state_dict'; prefix 'module.' removed" in flat
    if count > 1:
        assert "nearest, farthest: distance in % of the weights' length." in flat
        assert "spread: how far the models lie apart" in flat


@pytest.mark.parametrize("width", [50, 80])
def test_a_pool_is_checked_on_any_screen(
    merge: Merge, monkeypatch: pytest.MonkeyPatch, pools: Path, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ran = merge("check", "--models", pools / "hostile" / "*.pt", "--strategy", "uniform")
    assert (ran.code, "\x1b" in ran.out) == (0, False)
    assert all(cell_len(line) <= width for line in ran.out.splitlines())
    assert len(re.findall(r"  whole$", ran.out, re.MULTILINE)) == len(HOSTILE)


@pytest.mark.parametrize("width", [50, 80])
def test_paths_are_never_cut(merge: Merge, monkeypatch: pytest.MonkeyPatch, tiny: list[str], width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    folder = Path("a-folder-with-a-name-that-is-longer-than-half-a-screen") / "and-another-one-that-is-as-long-as-it"
    ran = merge(*tiny, "--strategy", "greedy", "--max-evaluations", "6", "--output", folder)
    assert ran.code == 0
    assert re.search(rf"{folder}/model\.safetensors\b", ran.out)
    assert f"{folder}/README.md\n" in ran.out
    assert f"merge run --resume {folder} --max-evaluations MORE\n" in ran.err
    report = merge("report", folder)
    assert all(cell_len(line) <= width for line in report.out.splitlines() if "/" not in line)


def test_what_is_scored_is_said_before(merge: Merge, pool_folder: Path) -> None:
    models = ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK]
    ran = merge("inspect", *models, "--partitioner", "layer")
    said = next(line for line in ran.err.splitlines() if "passes" in line)
    assert re.fullmatch(
        r"scoring 5 models and 4 midpoints on [\d,]+ held-out samples: 9 passes; --barriers none makes none", said
    )
    assert "negative where averaging helps" in ran.out
    line = merge("inspect", *models, "--interpolate", "model_0", "model_1", "--steps", "4", "--tests")
    assert re.search(r"scoring 5 points of the line on [\d,]+ held-out samples and \d test sets?: \d+ passes", line.err)
    assert "from model_0 (A) to model_1 (B)" in line.out


def test_a_grid_of_nothing_is_a_heading() -> None:
    empty = Grid(names=[], columns=[Column(head="score", cells=[])], corner="model")
    assert [line.plain for line in empty.lines(80)] == ["model  score"]
    assert [line.plain for line in replace(empty, columns=[]).lines(80)] == []


def test_a_look_at_a_pool_says_first_what_it_found(merge: Merge, pool_folder: Path, tmp_path: Path) -> None:
    """Duplicates, then whether averages can help; of a check whether all fits, then the cost, before any table."""
    models = str(pool_folder / "model_*.safetensors")
    ran = merge("inspect", "--models", models, "--task", TASK, "--partitioner", "layer")
    assert re.match(r"(one basin|not one basin): ", ran.out)
    same = tmp_path / "same"
    same.mkdir()
    for number in range(3):
        shutil.copy(pool_folder / "model_0.safetensors", same / f"copy_{number}.safetensors")
    shutil.copy(pool_folder / "model_1.safetensors", same / "other.safetensors")
    ran = merge("inspect", "--models", same)
    assert ran.out.startswith("duplicates: copy_0, copy_1, copy_2 hold the same weights\n\n")
    ran = merge("check", "--models", same, "--task", TASK, "--strategy", "greedy")
    lines = ran.out.splitlines()
    assert lines[0] == "Everything fits; 1 warning below."
    assert lines[1].startswith("greedy: about ")
    assert ran.out.index("warning: ") < ran.out.index("model")
    (same / "broken.safetensors").write_bytes(b"\0" * 100)
    ran = merge("check", "--models", same, "--task", TASK, "--strategy", "greedy")
    assert ran.code == 2
    assert ran.out.startswith("Not everything fits: 1 mistake, at the end.\n")


def test_models_far_apart_are_not_one_basin() -> None:
    barriers = (Barrier(first="a", second="b", ends=(0.9, 0.92), midpoint=0.2),)
    partition = Partition((Component("all", ("w",)),))
    found = Inspection(
        partition=partition,
        tensors={"w": ((2,), "float32")},
        marked=False,
        pool=("a", "b"),
        scores=(0.9, 0.92),
        barriers=barriers,
    )
    assert [line.plain for line in _answer(found)] == [
        "not one basin: the midpoint falls far below the two ends: averages of such models lose; highest barrier "
        "+71.00 points, between a and b"
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("asked", [["list"], ["describe", "greedy"], ["describe", "ties"]])
def test_plug_ins_are_told_on_any_screen(
    merge: Merge, monkeypatch: pytest.MonkeyPatch, asked: list[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ran = merge(*asked)
    assert ran.code == 0
    assert_fits(ran.out, width)


def assert_fits(text: str, width: int) -> None:
    """Nothing but single long words is wider than the screen, and no line ends with spaces."""
    lines = text.splitlines()
    assert [line for line in lines if cell_len(line) > width and " " in line.strip()] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_long_name_stays_whole_beside_sentences() -> None:
    said = [Text("it is said in a sentence")]
    shown = laid([(Text("a" * 40), said), (Text("日本語"), said), (Text("b"), said)], 60)
    assert [line.plain for line in shown] == [
        "a" * 40,
        " " * 32 + "it is said in a sentence",
        "日本語" + " " * 26 + "it is said in a sentence",
        "b" + " " * 31 + "it is said in a sentence",
    ]
