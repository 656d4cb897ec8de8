"""Coefficients, and what else is exploratory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.soups.cells import rounded
from benchmarks.soups.coefficients import mixed, reach
from benchmarks.soups.statistics import differences
from tests.benchmarking.pools_of_bits import (
    METHODS,
    names,
    pool,
    row,
    said_of,
)

AHEAD = {"affine": 0.03, "learned": 0.028}
EIGHT = names("pacs", 8)


def test_coefficients_are_measured_and_related_to_the_models(results: Path) -> None:
    assert reach(np.full((4, 3), 0.25)).distance == 0
    assert reach(np.full((4, 3), 0.25)).effective == pytest.approx(4)
    far = reach(np.array([[1.5, 1.0], [-0.5, 0.0]]))
    assert far.norm == pytest.approx(np.sqrt((2.5 + 1) / 2))
    assert far.distance == pytest.approx(np.sqrt((2 + 0.5) / 2))
    assert far.negative == 0.25
    assert far.effective == pytest.approx((4 / 2.5 + 1) / 2)
    record = pool("pacs-0", ["pacs-0"])
    known = mixed(record, record.methods[0])
    assert known is not None
    scores = [record.accuracy(model, "held-out") for model in record.models]
    record.write(results / "soups")
    text = said_of(results, "coefficients")
    assert row(text, "held-out accuracy")[2] == rounded(spearmanr(scores, known.values.mean(1)).statistic)
    column = known.values[:, 0]
    assert row(text, "stem")[1] == f"{-column[column < 0].sum():.2f}"


def test_models_that_a_merge_leaves_out_have_no_coefficient() -> None:
    record = pool("pacs-0", ["pacs-0"])
    only = {"ingredients": ["model_2", "base"], "components": ["all"], "values": [[0.75], [0.25]]}
    found = mixed(record, replace(record.methods[0], coefficients=only))
    assert found is not None
    assert found.models[-1] == "base"
    assert found.values[:, 0].tolist() == [0, 0, 0.75, 0, 0, 0, 0.25]


def test_exploratory_tables(results: Path) -> None:
    more = ["uniform-shrink", "uniform-monosoup", "learned-block"]
    records = [
        pool(name, EIGHT, shift={"uniform-monosoup": 0.02, "learned-block": 0.01}, methods=[*METHODS, *more])
        for name in EIGHT
    ]
    for record in records:
        record.write(results / "soups")
    folder = results / "soups" / "studies"
    folder.mkdir()
    rows = [{"pool": each, "samples": 225, "test": 0.8 + 0.02 * n, "cost": 70} for n, each in enumerate("ab")]
    study = {
        "format": "merging-soups-study/1",
        "study": "held-out samples",
        "by": ["samples"],
        "show": ["test", "cost"],
    }
    (folder / "samples.json").write_text(json.dumps({**study, "rows": rows}))
    values = differences(records, "uniform-monosoup", "uniform-shrink", "average")
    last = next(line for line in said_of(results, "edits").splitlines() if line.startswith("| `uniform` | monosoup |"))
    assert last.split(" | ")[-1].startswith(f"{100 * values.mean:+.2f} (")
    assert "learned-block" in said_of(results, "others")
    others, _, above = said_of(results, "others").partition("Every method less `best`")
    assert "uniform" not in others
    values = differences(records, "learned-block", "best", "average")
    low, high = (100 * end for end in values.interval())
    assert row(above, "`learned-block`")[1] == "8"
    assert row(above, "`learned-block`")[3] == f"{100 * values.mean:+.2f} ({low:+.2f} to {high:+.2f})"
    assert "| `best` |" not in above
    gaps = [
        record.accuracy(record.methods[1], "held-out") - record.accuracy(record.methods[1], "test")
        for record in records
    ]
    told = row(said_of(results, "optimism"), "`best`")[1]
    assert told == f"{100 * np.mean(gaps):.2f} ±{100 * np.std(gaps, ddof=1):.2f}"
    assert "| 225 | 2 | 81.00 ±1.41 | 70.0 |" in said_of(results, "studies")
