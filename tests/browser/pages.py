"""The results whose pages are looked at: committed ones, a run's, and a benchmark made up to be hard to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from merging.benchmarking.reading import read_folder
from merging.benchmarking.results import Benchmark, BenchmarkRow, placed_in
from merging.benchmarking.runs import Coefficients
from merging.benchmarking.side_by_side import combine
from merging.values.leaderboard import Single
from merging.values.states import MethodState

FOLDER = Path(__file__).parents[2] / "docs/results"
NASTY = "odd & <b>name</b> </script><script>alert(1)</script> \"quoted\" 'so' ${x} {{ y }} $z$ | a_b \u202eback"
LONG = "a-method-whose-name-goes-on-without-a-place-to-break-it-for-seventy-letters"
DENSE = ("learned", "model-stock")
"""Strategies whose merges hold all 72 models; pictures of the others would say nothing more about how they look."""


def committed(name: str) -> Benchmark:
    """Results that stand in docs/results."""
    return read_folder(FOLDER / name)


def several() -> Benchmark:
    """Two benchmarks that have no set in common, and stand in tables of their own; one folder was left out."""
    animals = committed("animals/compared")
    animals = replace(
        animals, rows=tuple(replace(row, coefficients=None) for row in animals.rows)
    )  # large, and as others
    parts = {"digits": committed("digits/compared"), "animals": animals}
    return combine(parts, {"runs/broken": "report.json is damaged: it ends in the middle"})


def made_up() -> Benchmark:
    """Fifteen methods, two of which gave nothing, and 72 models; names are long, odd or alike, gains large."""
    found = committed("pacs/bench_0")
    draw = np.random.default_rng(0)
    pool = [f"2026-11-{k % 28 + 1:02}_vit-base-patch16-clip-224_lr{k % 4 + 1}e-5/checkpoint-{k:05}" for k in range(70)]
    pool += [f"runs/{NASTY}/model.safetensors", "m"]
    sure, *others = [row for row in found.rows if row.strategy == "best"], *found.rows
    rows = [_renamed(row, pool, draw) for row in [*sure, *(row for row in others if row.strategy != "best")]]
    rows[3] = replace(rows[3], label=LONG)
    rows[4] = replace(rows[4], label=NASTY)
    why = f"needs base; give one with --base, as in merge benchmark --base runs/{LONG}/first.safetensors"
    gone = [
        BenchmarkRow(strategy="ties", label="ties", status=MethodState.CANNOT_RUN, why=why),
        BenchmarkRow(strategy="dare", label=f"dare {NASTY}", status=MethodState.FAILED, why=f"ValueError: {NASTY}"),
    ]
    singles = [_single(found.singles[k % len(found.singles)], name, draw) for k, name in enumerate(pool)]
    made = replace(found, rows=(*rows, *gone), pool=tuple(pool), task=f"cartoons & {NASTY}")
    return replace(made, singles=placed_in(singles, made.rows))


def _renamed(row: BenchmarkRow, pool: list[str], draw: np.random.Generator) -> BenchmarkRow:
    """A row whose ingredients are of another pool, with coefficients of all of its models where it has any."""
    places = draw.permutation(len(pool))[: max(1, len(row.ingredients))]
    names = tuple(pool[k] for k in sorted(places))
    known = row.coefficients if row.strategy in DENSE else None
    if known is not None:
        values = draw.dirichlet(np.full(len(pool), 0.05), size=len(known.components)).T
        values[draw.permutation(len(pool))[:8]] = 0.0
        names, known = tuple(pool), Coefficients(tuple(pool), known.components, values - 0.02 * (values < 1e-9))
    return replace(row, ingredients=names, coefficients=known, models=float(len(names)))


def _single(single: Single, name: str, draw: np.random.Generator) -> Single:
    tests = {key: min(1.0, max(0.0, score + float(draw.normal(0, 0.02)))) for key, score in single.tests.items()}
    return replace(single, name=name, tests=tests, shifted=float(np.mean([tests[key] for key in list(tests)[1:]])))


RESULTS: dict[str, Callable[[], Benchmark]] = {
    "pacs": lambda: committed("pacs/bench_0"),
    "run": lambda: committed("animals/first"),
    "several": several,
    "made up": made_up,
}
"""Name → what is rendered."""
