"""From the runs of a benchmark to its rows: seeds averaged, same partitions joined, everything tested in pairs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from merging.benchmarking.results import REFERENCES, SHIFTED, Benchmark, BenchmarkRow, Single, accurate, placed_in
from merging.benchmarking.runs import MethodRun
from merging.evaluation.comparing import Comparer
from merging.evaluation.draws import Seen
from merging.plugins.task import HELD_OUT
from merging.values.outcome import unscored
from merging.values.report import in_words, models_of
from merging.values.states import MethodState
from merging.values.statistics import Interval, mean_interval, wilson
from merging.values.verdict import ACCURACY, Verdict, corrected, unselected


@dataclass(frozen=True)
class Asked:
    """The question of a benchmark: which methods, partitions and seeds are compared, and with what.

    Attributes:
        methods: their names, in the order of the rows, with those of the partitions that each is run under.
        seeds: seeds of strategies and searches.
        references: methods that every other one is compared with, where they are there.
        refused: partitions that do not fit the model, and why; they have no rows.
    """

    methods: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    references: Sequence[str] = REFERENCES
    refused: Mapping[str, str] = field(default_factory=dict)


def gather(
    runs: Sequence[MethodRun], singles: tuple[Single, ...], asked: Asked, comparer: Comparer, pool: Sequence[str]
) -> Benchmark:
    """Rows from runs: seeds averaged, partitions that make no difference joined, everything tested in pairs.

    Args:
        runs: runs of the methods, in any order.
        singles: the pool's models alone.
        asked: what was to be compared.
        comparer: compares outcomes by the objective, on the task's sets.
        pool: names of its models.

    Returns:
        The rows and what is to be said of them; how the session went is for its caller to add.
    """
    grouped: dict[tuple[str, str], list[MethodRun]] = {}
    for run in runs:
        grouped.setdefault((run.entry["method"], run.entry["partition"]), []).append(run)
    notes = [f"no method was run under {label}: {why}" for label, why in asked.refused.items()]
    task, table = comparer.task, [_seen(group) for group in grouped.values()]
    rows: list[tuple[BenchmarkRow, list[MethodRun]]] = []
    for method, own_partitions in asked.methods.items():
        partitions = [label for label in own_partitions if label not in asked.refused]
        groups = {label: grouped.get((method, label), []) for label in partitions}
        joined = len({_content(group) for group in groups.values()}) == 1
        for label, group in list(groups.items())[: 1 if joined else None]:
            own = label if not joined or len(partitions) == 1 else None
            name = method if joined else f"{method} ({label})"
            rows.append((_row(name, method, own, group, comparer, table, pool), group))
    return Benchmark(
        task=task.name,
        objective=comparer.objective.name,
        rows=_compared(rows, comparer, table, asked.references),
        singles=placed_in(singles, (row for row, _ in rows)),
        samples={HELD_OUT: len(task.held_out), **{name: len(split) for name, split in task.tests.items()}},
        shifts=task.shifts,
        pool=tuple(pool),
        seeds=tuple(asked.seeds),
        notes=tuple(notes),
        measure=comparer.measure,
    )


def _content(group: Sequence[MethodRun]) -> tuple[Any, ...]:
    """What tells two partitions' runs of a method apart."""
    return tuple((run.seed, run.status, run.digest or run.why) for run in group)


def _seen(group: Sequence[MethodRun]) -> Seen:
    """Set → the outcomes of all finished seeds."""
    good = [run for run in group if run.status is MethodState.FINISHED]
    return {name: [run.outcomes[name] for run in good] for name in (good[0].outcomes if good else ())}


def _row(
    label: str,
    method: str,
    partition: str | None,
    group: Sequence[MethodRun],
    comparer: Comparer,
    table: Sequence[Seen],
    pool: Sequence[str],
) -> BenchmarkRow:
    good = [run for run in group if run.status is MethodState.FINISHED]
    if not group:
        return BenchmarkRow(
            strategy=method, label=label, partitioner=partition, status=MethodState.NOT_RUN, why="interrupted before"
        )
    plain = BenchmarkRow(
        strategy=group[0].entry["strategy"]["name"],
        label=label,
        partitioner=partition,
        options=group[0].entry["strategy"]["options"],
        status=group[0].status,
        why=group[0].why,
    )
    if not good:
        return plain
    task, objective, seen = comparer.task, comparer.objective.name, _seen(group)
    scores = {name: [outcome.score for outcome in known] for name, known in seen.items()}
    beside = comparer.accuracies(seen)
    scores |= {accurate(name): [outcome.accuracy for outcome in seen[name]] for name in beside}
    for mean, parts in ((SHIFTED, task.shifts), (accurate(SHIFTED), [accurate(name) for name in task.shifts])):
        if parts and scores.keys() >= set(parts):
            scores[mean] = [statistics.fmean(scores[name][i] for name in parts) for i in range(len(good))]
    means = {name: statistics.fmean(values) for name, values in scores.items()}
    accuracies = {name: means[accurate(name)] for name in (*seen, SHIFTED) if accurate(name) in means}
    intervals = _intervals(means, {name: known[0].samples for name, known in seen.items()}, comparer, seen, table)
    fails = [run for run in group if run.status is not MethodState.FINISHED]
    same = len({run.digest for run in good}) == 1
    idle = ["each seed gave the same merge"] if len(good) > 1 and same else []
    blank = [said for run in good if (said := unscored(run.outcomes, objective))]
    remarks = [*plain.why.splitlines(), *blank, *idle, *(f"seed {run.seed} {run.status}: {run.why}" for run in fails)]
    return replace(
        plain,
        status=MethodState.FINISHED,
        why="; ".join(dict.fromkeys(remarks)),
        held_out=means[HELD_OUT],
        tests={name: means[name] for name in task.tests},
        shifted=means.get(SHIFTED),
        intervals=intervals,
        spread={n: statistics.stdev(values) for n, values in scores.items()} if len(good) > 1 else {},
        seeds=tuple(run.seed for run in good),
        ingredients=good[0].ingredients,
        models=statistics.fmean(models_of(run.ingredients, pool) for run in good),
        evaluations=_mean(good, "evaluations"),
        cached=_mean(good, "cached"),
        forward_equivalents=_mean(good, "forward_equivalents"),
        seconds=_mean(good, "seconds"),
        inference_cost=max(run.inference_cost for run in good),
        coefficients=good[0].coefficients,
        trace=good[0].trace,
        accuracies=accuracies,
        digest=good[0].model,
    )


def _intervals(
    means: Mapping[str, float], samples: Mapping[str, int], comparer: Comparer, seen: Seen, table: Sequence[Seen]
) -> dict[str, Interval]:
    """Column → the 95 % interval of its score."""
    shifts, found = comparer.task.shifts, dict[str, Interval]()
    counted = comparer.measure == ACCURACY
    for name in samples:
        column = name if counted else accurate(name)
        if column in means:
            found[column] = wilson(means[column], samples[name])
        if not counted and (own := comparer.interval([name], seen, table)) is not None:
            found[name] = own
    mean, parts = (SHIFTED, shifts) if counted else (accurate(SHIFTED), tuple(accurate(name) for name in shifts))
    if mean in means:
        found[mean] = mean_interval([means[name] for name in parts], [samples[name] for name in shifts])
    if shifts and not counted and (own := comparer.interval(shifts, seen, table)) is not None:
        found[SHIFTED] = own
    return found


def _mean(runs: Sequence[MethodRun], name: str) -> float:
    mean = statistics.fmean(getattr(run, name) for run in runs)
    return int(mean) if mean == int(mean) and name in ("evaluations", "cached") else mean


def _compared(
    rows: Sequence[tuple[BenchmarkRow, list[MethodRun]]],
    comparer: Comparer,
    table: Sequence[Seen],
    references: Sequence[str],
) -> tuple[BenchmarkRow, ...]:
    """The rows with their paired tests, against each reference, corrected over the whole table."""
    sets = (HELD_OUT, *comparer.task.tests)
    verdicts: list[list[Verdict]] = [[] for _ in rows]
    named = [{row.strategy, *(run.entry["method"] for run in group)} for row, group in rows]
    for reference in references:
        which = [i for i, (row, _) in enumerate(rows) if reference in named[i] and row.finished]
        home = next((i for i in which if rows[i][0].label == reference), which[0] if which else None)
        if home is None:
            continue
        before, against = _seen(rows[home][1]), in_words(reference, rows[home][0].ingredients)
        for i, (row, group) in enumerate(rows):
            if i != home and row.finished:
                told = comparer.verdicts(sets, before, _seen(group), reference=reference, against=against, among=table)
                verdicts[i] += unselected(told, selected=any(run.selected for run in group))
    found = corrected(verdicts)
    return tuple(replace(row, verdicts=told) for (row, _), told in zip(rows, found, strict=True))
