"""Threshold tests that visit the hardest samples first, against the same tests in the data's order.

``python -m benchmarks.threshold --json``. Each model of the pool is asked whether it scores above the best one, and
whether its average with the best one scores above τ = 0.998 times that; both orders must decide the same. Shares are
of the held-out samples. To accept, nearly all samples must be seen in any order.
"""

from __future__ import annotations

import statistics
from typing import Any

import click

from benchmarks.common import chosen, json_option, only_option, show
from benchmarks.search import POOLS
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.values.recipe import Recipe


def measure(name: str, made: Any) -> dict[str, Any]:
    """One pool's row."""
    pool, task, partitioner, strategy = made
    ready = plan(pool, strategy, partitioner=partitioner, task=task)
    assert ready.live is not None  # noqa: S101 (for the type checker)
    assert ready.numerics is not None  # noqa: S101

    def fresh() -> Evaluator:
        return Evaluator.over(ready.live, task, ready.objective, ready.numerics, Ledger(Journal(None)))  # type: ignore[arg-type]

    singles = [Recipe.single(ingredient, ready.partition) for ingredient in pool.ingredients]
    with ready.numerics.applied():
        ranking = fresh()
        scores = [ranking.evaluate(recipe).score for recipe in singles]
        best = max(range(len(singles)), key=lambda i: scores[i])
        plain, hardest = fresh(), fresh()
        hardest.exceeds(singles[best], 0.0)  # from now on margins are kept
        hardest.evaluate(singles[best])
        rejected: list[tuple[float, float]] = []
        accepted: list[tuple[float, float]] = []
        same = True
        for index, single in enumerate(singles):
            if index == best:
                continue
            for recipe, threshold in ((single, scores[best]), (singles[best].lerp(single, 0.5), 0.998 * scores[best])):
                one, other = plain.exceeds(recipe, threshold), hardest.exceeds(recipe, threshold)
                same = same and one.exceeds == other.exceeds
                row = (one.samples_seen / len(task.held_out), other.samples_seen / len(task.held_out))
                (accepted if one.exceeds else rejected).append(row)
    medians = {
        f"{what}_{order}": statistics.median(row[k] for row in rows) if rows else None
        for what, rows in (("rejected", rejected), ("accepted", accepted))
        for k, order in enumerate(("in_order", "hardest_first"))
    }
    return {"task": name, "rejections": len(rejected), "acceptances": len(accepted), "same_answers": same, **medians}


@click.command()
@only_option
@json_option
def main(only: str | None, as_json: bool) -> None:
    """Share of the held-out samples that a threshold test sees."""
    rows = [measure(name, make(folder)) for name, make, folder in chosen(POOLS, only)]
    show("threshold", rows, as_json=as_json)


if __name__ == "__main__":
    main()
