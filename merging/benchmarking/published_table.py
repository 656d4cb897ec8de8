"""Published results as a result like any other, so that they can stand on a page beside one's own."""

from __future__ import annotations

from merging.benchmarking.published import BEST, ENSEMBLE, GREEDY, HELD_OUT, SETS, SHIFTED, UNIFORM, Published, Result
from merging.benchmarking.results import SHIFTED as AVERAGE
from merging.benchmarking.results import Benchmark, BenchmarkRow
from merging.plugins.task import HELD_OUT as OWN
from merging.values.report import best_single
from merging.values.verdict import ACCURACY, Family, Role, Verdict

TASK = "ImageNet, published results"
STRATEGIES = {BEST: "best", UNIFORM: "uniform", GREEDY: "greedy", ENSEMBLE: "ensemble"}
"""What a row is called → the strategy that makes such a merge."""
UNTESTED = "published files have no single samples"


def as_benchmark(found: Published) -> Benchmark:
    """The table of published results as a benchmark's: no intervals, no tests, and no costs, which no file has.

    Args:
        found: the published results.
    """
    tests = [name for name in SETS if name != HELD_OUT and any(name in row.accuracies for row in found.rows)]
    best = next((row.model for row in found.rows if row.label == BEST), None)
    return Benchmark(
        task=TASK,
        objective=ACCURACY,
        rows=tuple(_row(row, best) for row in found.rows),
        singles=(),
        samples={OWN: 0} | {SETS[name]: 0 for name in tests},
        shifts=tuple(SETS[name] for name in tests if name in SHIFTED),
        pool=(),
        seeds=(),
        notes=(f"held-out: {SETS[HELD_OUT]}, held out of ImageNet's training set", *found.findings),
        header={"sources": list(dict.fromkeys(row.source for row in found.rows))},
    )


def _row(row: Result, best: str | None) -> BenchmarkRow:
    tests = {SETS[name]: value for name, value in row.accuracies.items() if name != HELD_OUT}
    strategy = STRATEGIES.get(row.label, row.label)
    return BenchmarkRow(
        strategy=strategy,
        label=row.label,
        held_out=row.accuracies.get(HELD_OUT),
        tests=tests,
        shifted=row.average,
        ingredients=(row.model,) if row.label == BEST else (),
        verdicts=() if strategy == "best" or best is None else _untested(row, tests, best),
    )


def _untested(row: Result, tests: dict[str, float], best: str) -> tuple[Verdict, ...]:
    shifted = {SETS[name] for name in SHIFTED}
    roles = {OWN: Role.HELD_OUT} if HELD_OUT in row.accuracies else {}
    roles |= {name: Role.SHIFT if name in shifted else Role.TEST for name in tests}
    roles |= {AVERAGE: Role.AVERAGE} if row.average is not None else {}
    return tuple(
        Verdict(
            set=name,
            role=role,
            reference="best",
            against=best_single(best),
            measure=ACCURACY,
            family=Family.of(role, extra=False),
            why=UNTESTED,
        )
        for name, role in roles.items()
    )
