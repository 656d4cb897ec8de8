"""Learned and affine soups against the evaluations that their cost is counted in.

``python -m benchmarks.learned --json``. ``ratio`` is the wall time of learning ÷ (its forward-equivalents × the time of
one evaluation), all in one process. Bar: ≤ 1.4. The pools are those of ``benchmarks.search``.
"""

from __future__ import annotations

import json
import statistics
from functools import partial
from typing import Any

import click
import torch

from benchmarks.common import chosen, json_option, only_option, seconds, show
from benchmarks.search import POOLS, Made
from merging.plugins.task import HELD_OUT
from merging.running.plan import plan
from merging.running.session import Session
from merging.strategies.learned import Learned

SOUPS = ("learned", "affine")


def _session(made: Made, strategy: Learned, device: str, precision: str) -> Session:
    pool, task, _, _ = made
    planned = plan(pool, strategy, task=task, tests=False, cache_memory=0, device=device, precision=precision)
    assert planned.numerics is not None  # noqa: S101 (for the type checker)
    torch.set_num_threads(planned.numerics.threads)
    return Session.open(planned)


def measure(made: Made, profile: str, repeats: int, device: str, precision: str) -> dict[str, Any]:
    """One row: evaluations before and after the soup, and the soup in between.

    ``startup``: what a soup of one step takes, once in a process, longer than a second one.
    """
    once = [_session(made, Learned(profile=profile, steps=1), device, precision) for _ in range(2)]
    first, second = (seconds(partial(each.plan.strategy.mix, each.problem())) for each in once)
    session = _session(made, Learned(profile=profile), device, precision)
    evaluator, problem = session.evaluator, session.problem()
    assert evaluator is not None  # noqa: S101
    recipes = [problem.single(number) for number in range(len(problem.pool))]

    def evaluations() -> list[float]:
        evaluator.scorer.measure(recipes[0], HELD_OUT)
        order = (recipes[number % len(recipes)] for number in range(repeats))
        return [seconds(lambda: evaluator.scorer.measure(next(order), HELD_OUT)) for _ in range(repeats)]

    times, meter = evaluations(), evaluator.ledger.begin()
    wall = seconds(lambda: Learned(profile=profile).mix(problem))
    passes = meter.forward_equivalents
    times += evaluations()
    each = statistics.median(times)
    return {
        "soup": profile,
        "samples": len(evaluator.task.held_out),
        "models": len(problem.pool),
        "components": len(problem.partition),
        "numerics": session.plan.numerics.words if session.plan.numerics else "",
        "startup": first - second,
        "evaluation": each,
        "passes": passes,
        "seconds": wall,
        "ratio": wall / (passes * each),
    }


@click.command()
@only_option
@click.option("--repeats", type=int, default=5, show_default=True, help="Evaluations before and after each soup.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@json_option
def main(only: str | None, repeats: int, device: str, precision: str, as_json: bool) -> None:
    """Seconds of a soup ÷ seconds of as many passes."""
    rows = []
    for name, make, folder in chosen(POOLS, only):
        made = make(folder)
        for profile in SOUPS:
            rows.append({"task": name, **measure(made, profile, repeats, device, precision)})
            click.echo(json.dumps(rows[-1]), err=True)
    show("learned", rows, as_json=as_json)


if __name__ == "__main__":
    main()
