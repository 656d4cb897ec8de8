"""Committed results: the page's tables are those of the committed benchmarks, which render without evaluating."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.pacs import MODELS, SEEDS, SWEEP, summary
from merging.training.hyperparameters import Sweep
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


def test_a_committed_benchmark_renders_and_compares(merge: Merge) -> None:
    ran = merge("report", *FOLDERS[:2])
    assert ran.code == 0, ran.err
    assert "greedy" in ran.out
    assert "sketch" in ran.out
