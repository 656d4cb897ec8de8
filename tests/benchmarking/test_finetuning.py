"""``benchmarks.finetuning`` runs on a CPU with small numbers."""

from __future__ import annotations

import json
from functools import partial

import pytest
from click.testing import CliRunner

from benchmarks.finetuning import KINDS, made, main, pool
from merging.training.hyperparameters import HyperParameters


@pytest.mark.slow
def test_every_kind_of_step_is_measured() -> None:
    small = ["--images", "8", "--size", "32", "--batch", "4", "--steps", "1", "--json"]
    ran = CliRunner().invoke(main, small, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    rows = json.loads(ran.output)["rows"]
    assert [row["step"] for row in rows] == list(KINDS)
    for row in rows:
        assert row["range"][0] <= row["ratio"] <= row["range"][1]
        assert min(row["milliseconds"], row["bare_milliseconds"]) > 0
    assert {name for kind in KINDS.values() for name in kind} <= set(HyperParameters().options())


@pytest.mark.slow
def test_a_pool_is_timed() -> None:
    row = pool(partial(made, "torchvision:squeezenet1_1", 32, 32, 8), 1)
    assert (row["pool"], row["jobs"]) == (1, 1)
    assert row["milliseconds_a_step"] == pytest.approx(1e3 * row["seconds"] / row["steps"])
