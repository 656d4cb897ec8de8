"""Committed results: the page's tables are those of the committed benchmarks, which render without evaluating."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.pacs import MODELS, SEEDS, SWEEP, summary
from merging.benchmarking.results import EARLIER, SHIFTED, Benchmark
from merging.training.hyperparameters import Sweep
from merging.values.statistics import PairedTest, mcnemar
from merging.values.verdict import Family
from tests.conftest import Merge

RESULTS = Path(__file__).parents[2] / "docs" / "results"
FOLDERS = [RESULTS / "pacs" / f"bench_{seed}" for seed in SEEDS]


def test_the_tables_of_pacs_are_those_of_its_benchmarks() -> None:
    assert summary(FOLDERS) in (RESULTS / "pacs.md").read_text()


def test_three_pools_of_different_models_under_one_protocol() -> None:
    found = [json.loads((folder / "benchmark.json").read_text()) for folder in FOLDERS]
    hashes = [set(data["header"]["inputs"].values()) for data in found]
    assert all(len(data["pool"]) == MODELS >= 24 for data in found)
    assert not hashes[0] & hashes[1]
    assert not hashes[0] & hashes[2]
    assert not hashes[1] & hashes[2]
    for data in found:
        assert [row["label"] for row in data["rows"]] == [row["label"] for row in found[0]["rows"]]
        assert [row["options"] for row in data["rows"]] == [row["options"] for row in found[0]["rows"]]
        assert all(row["status"] == "finished" for row in data["rows"])
        assert data["samples"] == found[0]["samples"]


def test_the_sweep_of_the_pools_is_the_documented_one() -> None:
    import tomllib

    page = (RESULTS.parent / "finetune.md").read_text()
    assert SWEEP.strip() in page
    assert Sweep.of(tomllib.loads(SWEEP)).values("epochs") == [6, 9, 12]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_benchmark_of_the_earlier_format_has_the_same_tests(folder: Path) -> None:
    """Raw p and differences are kept; corrected p and intervals are those of today's families, and agree."""
    old = json.loads((folder / "benchmark.json").read_text())
    assert old["format"] == EARLIER
    found = Benchmark.read(folder / "benchmark.json")
    pairs = 0
    for before, row in zip(old["rows"], found.rows, strict=True):
        for reference, columns in before["against"].items():
            for column, pair in columns.items():
                told = row.verdict(reference, column)
                assert told is not None
                assert (told.p, told.difference) == (pair["p_value"], pair["difference"])
                assert told.corrected is not None
                assert told.interval is not None
                assert (told.interval[0] > 0 or told.interval[1] < 0) == (told.corrected < 0.05)
                if told.test == PairedTest.MCNEMAR:
                    assert told.p == pytest.approx(mcnemar(int(pair["gained"]), int(pair["lost"]), told.samples)[0])
                assert (told.test == PairedTest.NORMAL) == (column == SHIFTED), "sets of different size"
                pairs += 1
    best = [v for row in found.rows for v in row.verdicts if v.reference == "best"]
    assert {v.tests for v in best if v.family == Family.PRIMARY} == {2 * 12}
    assert {v.tests for v in best if v.family == Family.SECONDARY} == {2 * 12}
    assert {v.against for v in best} == {f"the best single model ({found.rows[0].ingredients[0]})"}
    assert pairs == sum(len(row.verdicts) for row in found.rows)
    assert Benchmark.from_json(found.to_json()).rows[1].verdicts == found.rows[1].verdicts


def test_a_committed_benchmark_renders_and_compares(merge: Merge) -> None:
    ran = merge("report", *FOLDERS[:2])
    assert ran.code == 0, ran.err
    assert "greedy" in ran.out
    assert "sketch" in ran.out
