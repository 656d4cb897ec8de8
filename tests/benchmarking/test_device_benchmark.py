"""``benchmarks.device``: runs on a CPU with small numbers, and its projection has its parts."""

from __future__ import annotations

import itertools
import json

import pytest
from click.testing import CliRunner

from benchmarks.device import VARIANTS, main, projection


@pytest.mark.slow
def test_it_runs_on_a_cpu() -> None:
    small = ["--images", "2", "--count", "1", "--model", "open_clip:ViT-S-32-alt", "--only", "fp32", "--json"]
    ran = CliRunner().invoke(main, small, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    row, projected = json.loads(ran.output)["rows"]
    assert row["variant"] == projected["variant"] == "fp32"
    assert "patches as products" in row["passes"]
    assert row["microseconds_an_image"] == pytest.approx(5e5 * row["seconds"])
    assert row["first_seconds"] > 0
    assert "not run" in projected["projection"]


def test_the_projection_follows_from_its_parts() -> None:
    found = projection({"variant": "bf16", "microseconds_an_image": 1e6 / 26_000})
    assert found["evaluations"] == 8034
    assert found["seconds_an_evaluation"] == pytest.approx(1)
    assert found["hours_of_all"] == pytest.approx(8034 / 3600)
    assert found["distinct_evaluations"] == 642
    assert found["minutes_of_distinct"] == pytest.approx(642 / 60)


def test_variants_differ_in_one_thing_each() -> None:
    ways = [tuple(settings.values()) for settings in VARIANTS.values()]
    apart = [sum(a != b for a, b in zip(one, two, strict=True)) for one, two in itertools.pairwise(ways[1:])]
    assert apart == [1, 1]
