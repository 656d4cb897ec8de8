"""The leaderboard where it is shown: 80 columns, odd names, large pools; in card, benchmark and report."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from merging.cli.showing.leaderboard import show_leaderboard
from merging.cli.showing.screen import Screen
from merging.testing import tiny_pool
from merging.values.leaderboard import Single, with_soups
from merging.values.leaderboard_table import Leaderboard
from tests.conftest import TASK, Merge


def shown(board: Leaderboard, width: int = 80) -> list[str]:
    """The lines that a terminal of so many columns gets."""
    console = Screen()
    console.file, console.width = io.StringIO(), width
    show_leaderboard(console, board, "report.json")
    return console.file.getvalue().splitlines()


def large(count: int, width: int = 8) -> Leaderboard:
    names = [f"{'m' * width}_{number:03}" for number in range(count)]
    singles = [
        Single(
            name=name,
            held_out=0.9 - number / 1000,
            tests={"test": 0.5, **{f"shift-{k}": 0.25 for k in range(9)}},
            shifted=0.25,
            trained={f"key-{k}": number for k in range(9)},
        )
        for number, name in enumerate(names)
    ]
    soups = {"uniform": names, "greedy": [names[0], names[-1]]}
    return Leaderboard(
        singles=with_soups(singles, soups),
        labels={"uniform": "uniform soup", "greedy": "greedy soup"},
        tests=("test", *(f"shift-{k}" for k in range(9))),
        shifts=tuple(f"shift-{k}" for k in range(9)),
    )


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("name", [3, 30, 300])
def test_no_line_is_wider_than_the_screen(width: int, name: int) -> None:
    lines = shown(large(5, name), width)
    assert all(len(line) <= width for line in lines)
    assert sum("0.90" in line or "90.00" in line for line in lines) == 1


def test_of_72_models_ten_and_those_in_a_soup() -> None:
    lines = shown(large(72))
    rows = [line for line in lines if line.lstrip()[:1].isdigit()]
    assert len(rows) == 11
    assert rows[-1].startswith("72. ")
    assert "… 61 more in report.json." in " ".join(line.strip() for line in lines)


def test_what_matters_is_given_room_first() -> None:
    board = large(3)
    heads = [lines.partition("(no room")[0] for lines in ("\n".join(shown(board, width)) for width in (300, 80, 50))]
    assert [("in" in head, "key-8" in head, "shift-0" in head) for head in heads] == [
        (True, True, True),
        (True, False, False),
        (True, False, False),
    ]
    assert "key-4" in heads[1]
    assert "(no room: " in "\n".join(shown(board, 80))


def test_names_in_wide_letters_leave_the_numbers_whole() -> None:
    """A letter of two cells, an emoji of several, and two names with one beginning: each row has its number."""
    called = ["日本語のモデル名はとても長いので切れるかもしれません", "emoji😀model👩‍👩‍👧"]
    called += [f"a-model-with-a-very-long-name-and-the-same-beginning-run{number}" for number in (4, 5)]
    singles = [
        Single(name=name, held_out=0.9 - number / 100, tests={"test": 0.5, "far": 0.25, "near": 0.3}, shifted=0.275)
        for number, name in enumerate(called)
    ]
    board = Leaderboard(singles=tuple(singles), tests=("test", "far", "near"), shifts=("far", "near"))
    for width in (40, 60, 80):
        lines = shown(board, width)
        assert max(map(cell_len, lines)) <= width
        assert all(line == line.rstrip() for line in lines)
        rows = [line for line in lines if re.search(r"(90|89|88|87)\.00 ", line)]
        assert len({line.split("  ")[0] for line in rows}) == 4
        assert all("50.00" in line and "27.50" in line for line in rows)


def test_a_run_shows_its_pool(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--strategy", "greedy", "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    lines = ran.out.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("pool"))
    rows = [line.split() for line in lines[begin + 1 : begin + 6]]
    assert [row[0] for row in rows] == [single["name"] for single in report["leaderboard"]]
    assert [row[1] for row in rows] == [f"{100 * single['held_out']:.2f}" for single in report["leaderboard"]]
    assert [row[-1] == "g" for row in rows] == ["greedy" in single["soups"] for single in report["leaderboard"]]
    assert "All models are in: uniform soup." in ran.out
    card = Path("out/README.md").read_text().partition("## The models of the pool")[2]
    assert [line.split(" | ")[0] for line in card.splitlines()[4:9]] == [f"| {row[0]}" for row in rows]


def test_names_are_shown_and_never_obeyed(merge: Merge, tmp_path: Path) -> None:
    tiny_pool(tmp_path / "pool", models=3)
    for number, name in enumerate(["[bold]x[]", "a|b", "<i>\x1b[2J"]):
        (tmp_path / "pool" / f"model_{number}.safetensors").rename(tmp_path / "pool" / f"{name}.safetensors")
    (tmp_path / "pool" / "a|b.json").write_text(json.dumps({"settings": {"optimizer": "[red]|<b>\x1b[1m", "seed": 3}}))
    (tmp_path / "pool" / "base.safetensors").unlink()
    ran = merge("run", "--models", "pool", "--task", TASK, "--strategy", "greedy", "--output", "out")
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out + ran.err + Path("out/README.md").read_text()
    row = next(line for line in ran.out.splitlines() if line.startswith("[bold]x[]"))
    assert "–" not in row.split()[1]
    assert "<b>" not in Path("out/README.md").read_text()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models with records of their training."""
    folder = tmp_path_factory.mktemp("recorded")
    tiny_pool(folder, models=3)
    for number in range(3):
        settings = {"learning_rate": 10.0**-number, "epochs": 5, "seed": number}
        (folder / f"model_{number}.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_a_benchmark_shows_its_pool_in_every_form(merge: Merge, recorded: Path) -> None:
    pool = ["--models", recorded / "model_*.safetensors", "--task", TASK]
    ran = merge("benchmark", *pool, "--strategies", "best,uniform,greedy", "--output", "bench")
    assert ran.code == 0, ran.err
    found = json.loads(Path("bench/benchmark.json").read_text())
    assert {tuple(single["trained"]) for single in found["singles"]} == {("lr", "seed")}
    assert all("uniform" in single["soups"] for single in found["singles"])
    lines = list(csv.DictReader(io.StringIO(Path("bench/pool.csv").read_text())))
    scores = [float(line["held-out"]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert {line["lr"] for line in lines} == {"1.0", "0.1", "0.01"}
    best = f"best ({lines[0]['model']})"
    assert best in ran.out
    for name in ("benchmark.md", "benchmark.html"):
        text = Path("bench", name).read_text()
        assert "The models of the pool" in text
        assert best in text
    assert any(
        line.startswith(f"| {lines[0]['model']} |") for line in Path("bench/benchmark.md").read_text().split("\n")
    )
    head = next(line for line in ran.out.splitlines() if line.startswith("pool"))
    assert head.split()[-2:] == ["lr", "seed"]
    assert merge("benchmark", *pool, "--strategies", "uniform", "--no-singles", "--output", "less").code == 0
    assert not Path("less/pool.csv").exists()


def test_a_report_of_a_run_and_a_benchmark_has_one_pool(merge: Merge, recorded: Path) -> None:
    pool = ["--models", recorded / "model_*.safetensors", "--task", TASK]
    assert merge("run", *pool, "--strategy", "greedy", "--output", "run").code == 0
    assert merge("benchmark", *pool, "--strategies", "uniform", "--no-singles", "--output", "bench").code == 0
    ran = merge("report", "run", "bench", "--output", "both")
    assert ran.code == 0, ran.err
    found = json.loads(Path("both/benchmark.json").read_text())
    assert [single["name"] for single in found["singles"]] == [f"model_{number}" for number in range(3)]
    assert all("uniform" in single["soups"] for single in found["singles"])
    old = json.loads(Path("run/report.json").read_text())
    del old["leaderboard"]  # as earlier versions wrote it
    Path("run/report.json").write_text(json.dumps(old))
    assert merge("report", "run").code == 0


def test_one_model_alone_is_no_leaderboard() -> None:
    console = Console(file=io.StringIO())
    show_leaderboard(console, Leaderboard(singles=()), "report.json")
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
