"""What a request costs besides the pass that it asks for."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import merging
from merging.evaluation.scorer import Scorer
from merging.plugins.task import HELD_OUT
from merging.plugins.watcher import Watcher
from merging.running.crew import hired
from merging.running.plan import plan
from merging.running.session import Session
from merging.testing import tiny_pool, tiny_task
from merging.values.recipe import Recipe

COUNT = 200
FIRST = 20
"""Requests that are not counted."""


def overhead(workers: int | str | None, folder: Path) -> dict[str, Any]:
    """Milliseconds from asking to having an outcome, without those of the pass: the median over new averages.

    Args:
        workers: as a run is told; None: this process makes the passes, so that nothing is sent.
        folder: for a tiny pool.
    """
    pool = tiny_pool(folder)
    made = plan(pool, merging.Greedy(), task=tiny_task(), partitioner=merging.Layer(), workers=workers, threads=1)
    assert made.numerics is not None  # noqa: S101 (for the type checker)
    with hired(made, None, Watcher()) as crew, made.numerics.applied():
        evaluator = Session.open(made, crew=crew).evaluator
        assert evaluator is not None  # noqa: S101
        one, other = (Recipe.single(ingredient, made.partition) for ingredient in made.pool.ingredients[:2])
        found = sorted(besides(evaluator.scorer, one, other))
    return {
        "workers": "none" if workers is None else str(workers),
        "requests": len(found),
        "milliseconds": 1000 * statistics.median(found),
        "nine_of_ten_below": 1000 * found[int(0.9 * len(found))],
    }


def besides(scorer: Scorer, one: Recipe, other: Recipe) -> list[float]:
    """Seconds of each evaluation of a new average, from asking to having it, without those of its pass."""
    found = []
    for share in np.linspace(0.1, 0.9, FIRST + COUNT):
        average, began = one.lerp(other, float(share)), time.perf_counter()
        outcome = scorer.measure(average, HELD_OUT)
        found.append(time.perf_counter() - began - outcome.seconds)
    return found[FIRST:]
