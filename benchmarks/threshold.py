"""Threshold tests: what share of the samples one sees, and what whole runs save that ask them.

``python -m benchmarks.threshold --json``. First each model of a pool is asked whether it scores above the best one, and
its average with the best one whether that scores above τ = 0.998 times it: hardest samples first, against the data's
order; both must decide the same. Shares are of the held-out samples. To accept, nearly all samples must be seen in any
order. Then whole runs, with the option ``early`` off and on: both must decide the same and end with the same recipe.
Forward-equivalents are of the whole run, of which the pool's ranking and the searches are the same on both sides;
``tests`` are those of the tests alone.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import merging
from benchmarks.common import chosen, json_option, only_option, show
from benchmarks.search import POOLS, Made
from merging.evaluation.bar import Bar
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.plugins.strategy import MixStrategy
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.values.recipe import Recipe


def measure(name: str, made: Made) -> dict[str, Any]:
    """One pool's row on single tests."""
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
        hardest.ledger.hardness = ranking.ledger.hardness
        rejected: list[tuple[float, float]] = []
        accepted: list[tuple[float, float]] = []
        same = True
        for index, single in enumerate(singles):
            if index == best:
                continue
            for recipe, threshold in ((single, scores[best]), (singles[best].lerp(single, 0.5), 0.998 * scores[best])):
                plain.ledger.hardness = fresh().ledger.hardness
                one, other = plain.exceeds(recipe, Bar(threshold)), hardest.exceeds(recipe, Bar(threshold))
                same = same and one.exceeds == other.exceeds
                row = (one.samples_seen / len(task.held_out), other.samples_seen / len(task.held_out))
                (accepted if one.exceeds else rejected).append(row)
    medians = {
        f"{what}_{order}": statistics.median(row[k] for row in rows) if rows else None
        for what, rows in (("rejected", rejected), ("accepted", accepted))
        for k, order in enumerate(("in_order", "hardest_first"))
    }
    return {"task": name, "rejections": len(rejected), "acceptances": len(accepted), "same_answers": same, **medians}


def runs(made: Made, strategy: MixStrategy, folder: Path, budget: int | None) -> dict[str, Any]:
    """One row on whole runs: a strategy that scores every candidate whole, against itself with ``early``."""
    pool, task, partitioner, _ = made
    told, passes, tests, seconds = [], [], [], []
    for early in (False, True):
        where = folder / f"early-{early}"
        result = merging.merge(
            pool,
            dataclasses.replace(strategy, early=early),  # type: ignore[call-arg]
            partitioner=partitioner,
            task=task,
            tests=False,
            budget=budget,
            output=where,
        )
        report = result.report
        decided = [{key: fact for key, fact in facts.items() if not _of_average(key)} for facts in report.decisions]
        recipe = {key: value for key, value in result.merge.to_json().items() if key != "options"}  # type: ignore[union-attr]
        told.append((recipe, decided))
        passes.append(report.forward_equivalents)
        seconds.append(report.wall_seconds)
        events = [json.loads(line) for line in (where / "events.jsonl").read_text("utf-8").splitlines()]
        tests.append(sum(event["passes"] for event in events if event["event"] == "test"))
        evaluations = report.evaluations
    candidates = len(told[0][1])
    return {
        "candidates": candidates,
        "accepted": sum(bool(facts.get("accepted")) for facts in told[0][1]),
        "ended_early": sum(event["event"] == "test" for event in events),
        "tests": tests[1],
        "evaluations": evaluations,
        "forward_equivalents": passes[0],
        "early_forward_equivalents": passes[1],
        "seconds": seconds[0],
        "early_seconds": seconds[1],
        "same_run": told[0] == told[1],
    }


def _of_average(fact: str) -> bool:
    return fact.startswith("average") or fact == "samples_seen"


def _strategies(manifold: MixStrategy) -> Mapping[str, MixStrategy]:
    return {
        "greedy": merging.Greedy(),
        "greedy, 3 random orders": merging.Greedy(order="random"),
        "manifoldmix": manifold,
    }


@click.command()
@only_option
@click.option("--budget", type=int, help="Evaluations per search of a whole run; default: the strategy's.")
@json_option
def main(only: str | None, budget: int | None, as_json: bool) -> None:
    """Share of the held-out samples that a threshold test sees, and whole runs with and without."""
    rows = []
    for name, make, folder in chosen(POOLS, only):
        (folder / "pool").mkdir()
        made = make(folder / "pool")
        rows.append(measure(name, made))
        for number, (label, strategy) in enumerate(_strategies(made[-1]).items()):
            rows.append({"task": name, "strategy": label, **runs(made, strategy, folder / str(number), budget)})
        for row in rows[-4:]:
            click.echo(json.dumps(row), err=True)
    show("threshold", rows, as_json=as_json)


if __name__ == "__main__":
    main()
