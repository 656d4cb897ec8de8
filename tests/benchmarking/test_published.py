"""``merge report --published``: the paper's table from the published files, what is said about it, and bad files."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merging.benchmarking.published import PRINTED, SETS, Result, ranking
from tests.conftest import ENVIRONMENT, Merge

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests/published"
INDIVIDUAL, UNIFORM, GREEDY, ENSEMBLE = (
    FOLDER / f"{kind}_results.jsonl" for kind in ("individual_model", "uniform_soup", "greedy_soup", "ensemble")
)
C8, GREEDY_TRACE = FOLDER / "manifoldmix_c8_trace.json", FOLDER / "greedy_trace.json"
ALL = (INDIVIDUAL, UNIFORM, GREEDY, ENSEMBLE, C8, GREEDY_TRACE)
BOARD = {
    "best individual model": (80.39, 47.97),
    "second best individual model": (79.89, 43.99),
    "uniform soup": (79.97, 51.58),
    "greedy soup": (81.03, 50.86),
    "ManifoldMixMS-C8": (80.95, 51.47),
    "ensemble": (81.19, 50.88),
}
"""ImageNet and average in %, in the order of Table 1. Not from the code under test."""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def report(merge: Merge, *files: str | Path) -> dict[str, Any]:
    ran = merge("report", "--published", *files, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)  # type: ignore[no-any-return]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes JSON lines (strings as they are) to a file and gives its path."""

    def write(*values: object, name: str = "mine.jsonl") -> Path:
        text = "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values)
        (tmp_path / name).write_text(text + "\n")
        return tmp_path / name

    return write


def one(found: dict[str, Any], *words: str) -> str:
    """The only finding with these words."""
    (finding,) = (finding for finding in found["findings"] if all(word in finding for word in words))
    return str(finding)


def scores(model: str, value: float, **others: float) -> dict[str, Any]:
    return {"model_name": model, **dict.fromkeys(SETS, value), **others}


def test_the_table_has_the_papers_rows_in_its_order(merge: Merge) -> None:
    rows = report(merge, *reversed(ALL))["rows"]
    assert [row["label"] for row in rows] == list(BOARD)
    assert [row["model"] for row in rows[:2]] == ["model_43", "model_44"]
    for row in rows:
        imagenet, average = BOARD[row["label"]]
        assert 100 * row["accuracies"]["ImageNet"] == pytest.approx(imagenet, abs=0.0051)
        assert 100 * row["average"] == pytest.approx(average, abs=0.0051)


def test_every_number_is_the_files(merge: Merge) -> None:
    """Against a plain loop over the same files."""
    by_model = {line["model_name"]: line for path in (INDIVIDUAL, UNIFORM, GREEDY, ENSEMBLE) for line in lines(path)}
    trace = json.loads(C8.read_text())
    last = [candidate["passes"][-1] for candidate in trace["candidates"] if candidate["decision"] == "accepted"][-1]
    by_model["ManifoldMixMS-C8"] = {"ImageNet2p": last, **trace["final_test_accuracy"]}
    for row in report(merge, *ALL)["rows"]:
        wanted = by_model[row["model"]]
        total = 0.0
        for name in ("ImageNetA", "ObjectNet", "ImageNetSketch", "ImageNetR", "ImageNetV2"):
            total += wanted[name]
        assert row["average"] == pytest.approx(total / 5, abs=1e-12)
        assert row["accuracies"] == {name: wanted[name] for name in SETS}
    assert last == 0.839731


def test_a_second_search_replaces_the_first(merge: Merge, write: Callable[..., Path]) -> None:
    """As in the published code, better or not; what was not accepted counts for nothing; the source names the run."""
    trace = {
        "source": "a run with 15 components",
        "order": ["a", "b", "c"],
        "start_val_acc": 0.5,
        "candidates": [
            {"decision": "accepted", "passes": [0.7, 0.6]},
            {"decision": "rejected", "passes": [0.9]},
            {"decision": "skipped", "passes": []},
        ],
        "final_test_accuracy": {"ImageNet": 0.4},
    }
    (row,) = report(merge, write(trace))["rows"]
    assert row["accuracies"] == {"ImageNet2p": 0.6, "ImageNet": 0.4}
    assert row["label"] == "ManifoldMixMS-C15"
    del trace["source"]
    assert report(merge, write(trace))["rows"][0]["label"] == "ManifoldMixMS"


def test_headings_are_those_of_the_sets_that_were_measured() -> None:
    """An accuracy is a whole number of images; under each other's heading none of these would be one."""

    def whole(value: float, images: int) -> bool:
        return abs(value * images - round(value * images)) < 1e-6

    pairs = [(ln["ImageNetR"], ln["ImageNetSketch"]) for path in ALL[:4] for ln in lines(path)]
    assert len(pairs) == 75
    assert all(whole(renditions, 30_000) and whole(sketch, 50_889) for renditions, sketch in pairs)
    assert not any(whole(renditions, 50_889) or whole(sketch, 30_000) for renditions, sketch in pairs)


def test_the_ranking_is_the_published_order(merge: Merge) -> None:
    published = json.loads(GREEDY_TRACE.read_text())["order"]
    results = [Result(line["model_name"], line, "") for line in lines(INDIVIDUAL)]
    assert [result.model for result in ranking(results)] == published
    assert len(published) == 72
    finding = one(report(merge, *ALL), "72 models ranked")
    assert "best model_43 (83.05 %), then model_44 (82.90 %)" in finding
    assert finding.endswith("(model_5 before model_4)")


def test_traces_are_compared_with_the_ranking(merge: Merge, write: Callable[..., Path]) -> None:
    found = report(merge, *ALL)
    assert "the same order and ended at 84.02 %" in one(found, "greedy_trace.json")
    assert "the same order and ended at 83.97 %" in one(found, "manifoldmix_c8_trace.json")
    trace = json.loads(GREEDY_TRACE.read_text())
    trace["order"][-1], trace["order"][-2] = trace["order"][-2:]
    assert "another order" in one(report(merge, INDIVIDUAL, write(trace, name="swapped.json")), "swapped.json")


def test_what_the_papers_print_otherwise(merge: Merge) -> None:
    found = report(merge, *ALL)
    assert "IN-R and IN-Sketch under each other's heading" in one(found, "2309.08610", "heading")
    wortsman = one(found, "Wortsman et al. 2022 (arXiv 2203.05482) prints")
    pairs = re.findall(r"average of ([\w ]+?) (\d\d\.\d\d) \(files: (\d\d\.\d\d)\)", wortsman)
    assert pairs == [
        ("best individual model", "47.83", "47.97"),
        ("second best individual model", "43.87", "43.99"),
        ("uniform soup", "51.45", "51.58"),
        ("greedy soup", "50.75", "50.86"),
        ("ensemble", "50.77", "50.88"),
    ]
    assert "IN of" not in wortsman, "80.38 printed and 80.386 measured are the same number"
    fassold = one(found, "Fassold 2023 (arXiv 2309.08610) prints")
    assert fassold.count("(files:") == 1
    assert "average of ensemble 50.77 (files: 50.88)" in fassold
    assert "mixes units" in fassold


def test_only_what_was_given_is_compared(merge: Merge, write: Callable[..., Path]) -> None:
    """Another pool's best model is not the printed one; a printed number that the file has is no difference."""
    assert one(report(merge, GREEDY), "Wortsman et al. 2022 (arXiv").count("(files:") == 1
    others = write(scores("a", 0.5), scores("b", 0.6))
    assert not any("Wortsman" in finding for finding in report(merge, others)["findings"])
    agreeing = write(scores("uniform_soup", 0.51451, ImageNet=0.79974))
    assert not any("Wortsman" in finding for finding in report(merge, agreeing)["findings"])
    differing = write(scores("uniform_soup", 0.51451, ImageNet=0.7999))
    assert "IN of uniform soup 79.97 (files: 79.99)" in one(report(merge, differing), "Wortsman")


def test_copies_are_named(merge: Merge, write: Callable[..., Path]) -> None:
    assert one(report(merge, INDIVIDUAL), "identical").startswith("model_4 and model_5 have identical scores on all 7")
    mine = write(scores("a", 0.5), scores("b", 0.5), scores("c", 0.5), scores("d", 0.5, ObjectNet=0.4))
    assert one(report(merge, mine), "identical").startswith("a and b and c have")
    alone = write(*({"model_name": name, "ImageNet2p": 0.5} for name in "ab"))
    assert not any("identical" in finding for finding in report(merge, alone)["findings"])


def test_the_linear_probe_is_named_with_its_rank(merge: Merge, write: Callable[..., Path]) -> None:
    assert "rank 72 of 72" in one(report(merge, INDIVIDUAL), "model_0 is the linear-probe initialisation")
    better = [line | ({"ImageNet2p": 0.8} if line["model_name"] == "model_0" else {}) for line in lines(INDIVIDUAL)]
    higher = 1 + sum(line["ImageNet2p"] > 0.8 for line in better)
    assert f"rank {higher} of 72" in one(report(merge, write(*better)), "linear-probe")
    fewer = report(merge, write(*lines(INDIVIDUAL)[:-1]))
    assert not any("linear-probe" in finding for finding in fewer["findings"]), "another pool's model_0 is unknown"


def test_rows_without_a_file_are_absent(merge: Merge, write: Callable[..., Path]) -> None:
    assert [row["label"] for row in report(merge, ENSEMBLE, C8)["rows"]] == ["ManifoldMixMS-C8", "ensemble"]
    assert [row["label"] for row in report(merge, write(scores("only", 0.5)))["rows"]] == ["best individual model"]


def test_missing_sets_are_missing_numbers(merge: Merge, write: Callable[..., Path]) -> None:
    short = scores("a", 0.5)
    del short["ObjectNet"]
    unranked = scores("b", 0.9)
    del unranked["ImageNet2p"]
    file = write(short, unranked)
    found = report(merge, file)
    assert [(row["model"], row["average"]) for row in found["rows"]] == [("a", None)]
    assert "1 of 2 models have no rank" in one(found, "ImageNet2p")
    assert re.search(
        r"best individual model +50\.00 .* – .* –$", merge("report", "--published", file).out, re.MULTILINE
    )


def test_files_are_known_by_their_content(merge: Merge, tmp_path: Path) -> None:
    """Names swapped, a byte-order mark, blank lines, the same file twice: the same report."""
    (tmp_path / "a.json").write_text("\ufeff" + INDIVIDUAL.read_text().replace("\n", "\n\n"))
    (tmp_path / "b.jsonl").write_bytes(C8.read_bytes())
    wanted, found = report(merge, INDIVIDUAL, C8), report(merge, "a.json", "a.json", "b.jsonl")
    assert [row["accuracies"] for row in found["rows"]] == [row["accuracies"] for row in wanted["rows"]]
    assert len(report(merge, INDIVIDUAL, C8, C8)["findings"]) == len(found["findings"]) == len(wanted["findings"])


def test_where_a_number_stands(merge: Merge) -> None:
    rows = report(merge, INDIVIDUAL, GREEDY)["rows"]
    assert rows[0]["source"] == f"{INDIVIDUAL}, line 44"
    assert rows[2]["source"] == str(GREEDY)


def test_terminal_and_json_say_the_same(merge: Merge) -> None:
    found = report(merge, *ALL)
    out = merge("report", "--published", ALL[0], "--published", ALL[1], *ALL[2:]).out
    assert out.count("note: ") == len(found["findings"])
    assert all(f"note: {finding}" in " ".join(out.split()) for finding in found["findings"])
    header = "IN-2p IN IN-V2 IN-R IN-Sketch ObjectNet IN-A average"
    assert header in re.sub(" +", " ", out)
    names = ("ImageNet2p", "ImageNet", "ImageNetV2", "ImageNetR", "ImageNetSketch", "ObjectNet", "ImageNetA")
    for row in found["rows"]:
        cells = [f"{100 * row['accuracies'][name]:.2f}" for name in names] + [f"{100 * row['average']:.2f}"]
        assert f"{row['label']} {' '.join(cells)}" in re.sub(" +", " ", out)


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_no_number_is_cut_in_a_narrow_terminal(merge: Merge, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = merge("report", "--published", *ALL).out
    table = out.partition("Best of each column")[0].partition("accuracy in %")[2]
    assert "…" not in table
    numbers = re.findall(r"\b\d\d\.\d\d\b", table)
    rows = report(merge, *ALL)["rows"]
    wanted = [f"{100 * v:.2f}" for row in rows for v in (*row["accuracies"].values(), row["average"])]
    assert sorted(numbers) == sorted(wanted)
    assert all(len(line) <= max(columns, 26) for line in table.splitlines())
    assert ("average" in table.splitlines()[1]) == (columns >= 80), "one table where there is room for it"


def test_best_of_each_column_is_bold(merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out = merge("report", "--published", *ALL).out
    table = out.partition("\n")[2].partition("\n")[2].partition("Best of")[0]
    bold = re.findall(r"\x1b\[1m(\d\d\.\d\d)\x1b", table)
    assert bold == ["66.54", "45.95", "29.17", "51.58", "83.98", "69.67", "48.15", "81.19"]


def test_a_pipe_gets_plain_text_and_torch_is_not_loaded() -> None:
    code = (
        "import sys; sys.argv[0] = 'merge'\nfrom merging.cli.main import main\ntry: main()\n"
        "except SystemExit as end: assert not end.code\nassert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, "report", "--published", *map(str, ALL)]
    ran = subprocess.run(command, env=ENVIRONMENT | {"NO_COLOR": "1"}, capture_output=True, text=True, check=True)
    assert "\x1b" not in ran.stdout
    assert "51.47" in ran.stdout


GOOD = json.dumps(scores("a", 0.5))
BAD: list[tuple[str, str]] = [
    ("", "line 1 is not JSON"),
    ("{", "line 1 is not JSON"),
    (f"{GOOD}\n{GOOD[:-1]}\n{GOOD}", "line 2 is not JSON"),
    (f"{GOOD[:-1]}\n{GOOD}\n", "line 1 is not JSON"),
    ('{\n "order": ["a"],\n "candidates": [,\n]}', "line 3 is not JSON"),
    ("[" * 100_000, "line 1 is not JSON"),
    (f'{GOOD}\n{{"ImageNet": 0.5}}', "line 2: not an object with a model_name"),
    (f"{GOOD}\n[1]", "line 2: not an object with a model_name"),
    ('{"ImageNet": 0.5}', "not an object with a model_name"),
    ('{"model_name": 3, "ImageNet": 0.5}', "not an object with a model_name"),
    ('{"model_name": "a", "ImageNet": 80.4}', "ImageNet is 80.4, but accuracies are fractions from 0 to 1"),
    ('{"model_name": "a", "ImageNet": -0.1}', "ImageNet is -0.1"),
    ('{"model_name": "a", "ImageNet": NaN}', "ImageNet is nan"),
    ('{"model_name": "a", "ImageNetA": "0.5"}', "ImageNetA is not a number"),
    ('{"model_name": "a", "ImageNetA": true}', "ImageNetA is not a number"),
    ('{"model_name": "a", "ImageNetA": null}', "ImageNetA is not a number"),
    ('{"model_name": "a", "CIFAR": 0.5}', "none of the known sets (ImageNet2p, ImageNet, ImageNetV2"),
    ("[1, 2]", "not a kind of file that is read here, which are JSON lines with model_name"),
    ('{"numberComponents": 8}', "traces of runs with order and candidates"),
    (f"{GOOD}\n{json.dumps(scores('a', 0.5, ObjectNet=0.4))}", "line 2: a has other numbers than in"),
    ('{"model_name": "a", "ImageNet": 0.5}', "models without ImageNet2p have no rank"),
    ('{"order": [], "candidates": [], "start_val_acc": 0.5}', "a trace without models"),
    ('{"order": ["a"], "candidates": [{"accepted": true}], "start_val_acc": 0.5}', "cannot be read"),
    ('{"order": ["a"], "candidates": [{"decision": "accepted", "passes": []}], "start_val_acc": 1}', "cannot be read"),
    ('{"order": ["a"], "candidates": 3, "start_val_acc": 0.5}', "cannot be read"),
    ('{"order": ["a"], "candidates": []}', "cannot be read"),
    ('{"order": ["a"], "candidates": [], "start_val_acc": 2}', "ImageNet2p is 2"),
    ('{"order": ["a"], "candidates": [], "start_val_acc": 0.5, "final_test_accuracy": {"x": 1}}', "known sets"),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=range(len(BAD)))
def test_bad_files_are_one_line(merge: Merge, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    ran = merge("report", "--published", "bad.jsonl")
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert said in line
    assert "bad.jsonl" in line or "no row of the table" in line


def test_other_mistakes_are_one_line(merge: Merge, tmp_path: Path) -> None:
    (tmp_path / "picture.jsonl").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "changed.jsonl").write_text(GREEDY.read_text().replace("0.81026", "0.81027"))
    (tmp_path / "folder").mkdir()
    for arguments, said in (
        ([], "merge report --published FILE"),
        ([str(GREEDY)], "merge report --published FILE"),
        (["--published", "gone.jsonl"], "no such results file: gone.jsonl"),
        (["--published", "folder"], "no such results file: folder"),
        (["--published", "picture.jsonl"], "not JSON"),
        (["--published", str(GREEDY), "changed.jsonl"], f"greedy_soup has other numbers than in {GREEDY}"),
        (["--published", str(GREEDY_TRACE)], "runs without tests no scores"),
        (["--published", str(FOLDER / "manifoldmix_c8_result.json")], "not a kind of file that is read here"),
    ):
        ran = merge("report", *arguments)
        assert (ran.code, ran.out) == (2, ""), arguments
        (line,) = ran.err.splitlines()
        assert said in line


def test_the_page_is_true(merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command prints its table, and its comparison with the printed numbers is the files'."""
    page = (ROOT / "docs/published.md").read_text()
    command = page.partition("<!-- published -->\n```\n")[2].partition("\n```")[0]
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command)
    assert program == "merge"
    files = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
    out = merge(*(file for group in files for file in group)).out
    shown = page.partition("<!-- published-output -->\n```\n")[2].partition("```")[0]
    assert [line.rstrip() for line in out.partition("note:")[0].splitlines()] == shown.splitlines()
    table = page.partition("<!-- printed -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    wanted = []
    for label, printed in PRINTED["Wortsman et al. 2022 (arXiv 2203.05482)"][1].items():
        measured = BOARD[label]
        wanted.append(f"| {label} | {printed[0]:.2f} / {printed[1]:.2f} | {measured[0]:.2f} / {measured[1]:.2f} |")
    assert table == wanted
