"""`nested`, a search that knows what a point costs, against `nevergrad-cobyla` at 250 evaluations a search.

``python -m benchmarks.nested --json``. Both with exact savings on, in one `manifoldmix`; forward-equivalents are those
of the searches alone, and the rest of the run (ranking, averages, accepted mixes scored again) stands beside them. The
pools: of the digits three quarters of the models, drawn by a seed; three of PACS, each of four SqueezeNets fine-tuned
with seeds of its own.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

import merging
from benchmarks.common import chosen, json_option, only_option, show
from benchmarks.search import Made, digits, pacs
from merging.plugins.optimizer import Optimizer, Search
from merging.plugins.partitioner import Partitioner
from merging.values.outcome import Solution

BUDGET = 250
"""Points of a search, at the most, for both."""
SEEDS = (16, 17, 18)
"""Of the draws: no setting of `nested` was looked at on these."""


def watched(kind: type[Optimizer], spent: list[float]) -> Optimizer:
    """An optimizer of a kind, which notes the forward-equivalents of each of its searches."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        def maximize(self, search: Search) -> Solution:
            try:
                return super().maximize(search)  # type: ignore[no-any-return]
            finally:
                spent.append(search.spent)

    return Watched()


def some_digits(folder: Path, *, seed: int, partitioner: Partitioner) -> Made:
    """Three quarters of the built-in pool, drawn by a seed."""
    pool, task, _, strategy = digits(folder)
    count = len(pool)
    kept = sorted(np.random.default_rng(seed).choice(count, size=3 * count // 4, replace=False))
    return merging.ModelPool([pool.checkpoints[index] for index in kept]), task, partitioner, strategy


def some_pacs(folder: Path, *, seed: int) -> Made:
    """Four models that no other seed has, and test sets."""
    pool, task, partitioner, _ = pacs(folder, seed=4 * seed, tested=True)
    return pool, task, partitioner, merging.ManifoldMix(tau=0.9, barrier=None)


POOLS: dict[str, Callable[[Path], Made]] = {
    **{f"digits-c8-{s}": partial(some_digits, seed=s, partitioner=merging.ClipC8()) for s in SEEDS},
    **{f"digits-c26-{s}": partial(some_digits, seed=s, partitioner=merging.ClipC26()) for s in SEEDS},
    **{f"pacs-block-{s}": partial(some_pacs, seed=s) for s in SEEDS},
}
OPTIMIZERS: tuple[type[Optimizer], ...] = (merging.NevergradCobyla, merging.Nested)


def measure(made: Made, kind: type[Optimizer], seed: int) -> dict[str, Any]:
    """One run: what its searches and the rest of it have cost, and what the soup scores."""
    pool, task, partitioner, strategy = made
    spent = list[float]()
    optimizer = watched(kind, spent)
    result = merging.merge(
        pool,
        strategy,
        partitioner=partitioner,
        optimizer=optimizer,
        task=task,
        seed=seed,
        budget=BUDGET,
        baselines=False,
    )
    row = result.report.rows[0]
    return {
        "searches": len(spent),
        "each": statistics.mean(spent) if spent else 0.0,
        "in_searches": sum(spent),
        "besides": result.report.forward_equivalents - sum(spent),
        "held_out": row.held_out,
        **{name: score for name, score in row.tests.items()},
    }


def compared(name: str, made: Made) -> Iterator[dict[str, Any]]:
    """A row for each optimizer; ``share`` is what a search costs, as a share of the first one's."""
    family, _, seed = name.rpartition("-")
    first = 0.0
    for kind in OPTIMIZERS:
        row = measure(made, kind, int(seed))
        first = first or row["each"]
        yield {"pool": family, "seed": int(seed), "optimizer": kind.name, **row, "share": row["each"] / first}


@click.command()
@only_option
@json_option
def main(only: str | None, as_json: bool) -> None:
    """Forward-equivalents of the searches of a manifold mix, and the scores of its soups."""
    rows = []
    for name, make, folder in chosen(POOLS, only):
        (folder / "pool").mkdir()
        for row in compared(name, make(folder / "pool")):
            rows.append(row)
            click.echo(json.dumps(row), err=True)
    show("nested", rows, as_json=as_json)


if __name__ == "__main__":
    main()
