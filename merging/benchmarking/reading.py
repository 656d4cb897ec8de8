"""Finished runs and benchmarks, read back from their folders and put side by side; nothing is evaluated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from merging.benchmarking.folder import RESULT
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow, Single, accurate, placed_in
from merging.benchmarking.runs import Coefficients
from merging.errors import DAMAGED, FolderError, near_path, raised
from merging.plugins.task import HELD_OUT
from merging.storage.result import RECIPE, REPORT
from merging.values.earlier import row_of_today, verdicts_of
from merging.values.report import UNTESTED, models_of
from merging.values.states import RunState, state_of
from merging.values.statistics import mean_interval, wilson
from merging.values.verdict import ACCURACY, Family, Role, Verdict, corrected, unselected
from merging.values.workers import WorkerFacts

CLOSE = 0.01
"""Scores of one model that differ by less are of the same data, in another precision."""


def read_folder(folder: Path) -> Benchmark:
    """Reads the folder of a benchmark, or of a run (one row for each of its strategies).

    Raises:
        FolderError: there is neither, or it is damaged.
    """
    if (folder / RESULT).is_file():
        return Benchmark.read(folder / RESULT)
    if not folder.exists():
        raise FolderError(f"there is no folder {folder}{near_path(folder)}")
    path = folder / REPORT
    if not path.is_file():
        raise FolderError(f"{folder} holds no finished run and no benchmark ({REPORT}, {RESULT})")
    try:
        report = json.loads(path.read_bytes())
        return of_run(report, folder)
    except DAMAGED as error:
        raise FolderError(f"{path} is damaged: {raised(error, whole=True)}") from None


def of_run(report: dict[str, Any], folder: Path | None) -> Benchmark:
    """A run's rows; the strategy that was asked for is compared, the others are not.

    Args:
        report: what its ``report.json`` holds.
        folder: the run's folder, whose recipe has the coefficients; None where there is none.
    """
    verdicts = _verdicts(report)
    sets = dict.fromkeys(name for row in report["rows"] for name in row["tests"])
    samples = {HELD_OUT: int(report["held_out_samples"])} | dict.fromkeys(sets, 0)
    samples |= {verdict.set: verdict.samples for verdict in verdicts if verdict.set in sets}
    samples |= {name: count for name, count in report.get("samples", {}).items() if name in samples}
    rows = tuple(_row(row, report, samples, verdicts, folder) for row in report["rows"])
    state, limit = state_of(report["status"])
    header = {key: report[key] for key in ("versions", "numerics", "optimizer", "partitioner", "seed")}
    return Benchmark(
        task=str(report["task"]),
        objective=report["objective"],
        rows=rows,
        singles=_singles(report, sets),
        samples=samples,
        shifts=tuple(report["shifts"]),
        pool=tuple(report["pool"]),
        seeds=(int(report["seed"]),),
        state=state,
        evaluations=int(report["evaluations"]),
        wall_seconds=float(report["wall_seconds"]),
        notes=tuple(note for note in report["notes"] if note != report.get("doubt")),
        doubt=report.get("doubt", ""),
        command="",
        header=header,
        measure=report.get("measure", report["objective"]),
        limit=limit,
        workers=tuple(WorkerFacts.from_json(worker) for worker in report.get("workers", ())),
    )


def _singles(report: dict[str, Any], sets: Collection[str]) -> tuple[Single, ...]:
    """The models of the pool, in its order, that the run has scored on every set; none of an earlier report."""
    known = {single["name"]: Single.from_json(single) for single in report.get("leaderboard", ())}
    found = [known[name] for name in report["pool"] if name in known]
    return tuple(single for single in found if single.held_out is not None and single.tests.keys() == set(sets))


def _verdicts(report: dict[str, Any]) -> tuple[Verdict, ...]:
    """Those of the strategy that was asked for, but for what has certified it; also of an earlier report."""
    return corrected([[verdict for verdict in verdicts_of(report) if verdict.role != Role.CERTIFY]])[0]


def _row(
    row: dict[str, Any],
    report: dict[str, Any],
    samples: Mapping[str, int],
    verdicts: Sequence[Verdict],
    folder: Path | None,
) -> BenchmarkRow:
    asked = row["strategy"] == report["strategy"]
    shifts, counted = report["shifts"], report.get("measure", report["objective"]) == ACCURACY
    scores = {HELD_OUT: row["held_out"], **row["tests"]}
    row = row_of_today(row, report, verdicts)
    accurate_scores = {accurate(name): value for name, value in row.get("accuracies", {}).items()}
    shown = scores if counted else accurate_scores
    sizes = {name if counted else accurate(name): count for name, count in samples.items()}
    intervals = {name: wilson(shown[name], sizes[name]) for name in shown if sizes.get(name)}
    parts = [name if counted else accurate(name) for name in shifts]
    if parts and intervals.keys() >= set(parts):
        mean = SHIFTED if counted else accurate(SHIFTED)
        intervals[mean] = mean_interval([shown[name] for name in parts], [sizes[name] for name in parts])
    return BenchmarkRow(
        strategy=row["strategy"],
        label=row["strategy"],
        partitioner=report["partitioner"] if asked else None,
        options=report["options"] if asked else {},
        held_out=row["held_out"],
        tests=row["tests"],
        shifted=row["shifted"],
        intervals=intervals,
        seeds=(int(report["seed"]),),
        ingredients=tuple(row["ingredients"]),
        models=models_of(row["ingredients"], report["pool"]),
        evaluations=row["evaluations"],
        cached=row["cached"],
        forward_equivalents=row["forward_equivalents"],
        seconds=row["seconds"],
        inference_cost=row["inference_cost"],
        verdicts=_of_row(row["strategy"], report, verdicts),
        accuracies=row.get("accuracies", {}),
        digest=row.get("digest", ""),
        coefficients=_coefficients(folder / RECIPE) if folder and _written(row, report) else None,
    )


def _written(row: dict[str, Any], report: dict[str, Any]) -> bool:
    """Whether the folder's recipe is of this row."""
    return bool(row["strategy"] == report.get("saved", report["strategy"]))


def _of_row(strategy: str, report: dict[str, Any], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts of the strategy that was asked for; of the others, that they were not tested."""
    if strategy == "best":
        return ()
    if strategy == report["strategy"]:
        return tuple(verdicts)
    blank: dict[str, Any] = dict.fromkeys(
        ("difference", "interval", "p", "corrected", "level", "test", "gained", "lost")
    )
    own = (
        replace(verdict, **blank, tests=0, why=UNTESTED, family=Family.of(verdict.role, extra=verdict.extra))
        for verdict in verdicts
    )
    return unselected(own, selected=strategy != "uniform")  # of the baselines, a plain average asks for no score


def _coefficients(path: Path) -> Coefficients | None:
    """The table of a run's recipe, where there is one."""
    if not path.is_file():
        return None
    recipe = json.loads(path.read_bytes())
    components = [component for component in recipe["components"] if not component["inert"]]
    table = np.array([component["coefficients"] for component in components], dtype=np.float64).T
    names = tuple(ingredient["name"] for ingredient in recipe["ingredients"])
    return Coefficients(names, tuple(component["name"] for component in components), table)


def combine(found: Mapping[str, Benchmark]) -> Benchmark:
    """Several folders' results as one: rows one below the other, a model once, told apart by their folders.

    Of a model that several folders have, the tested verdicts are kept; then one correction goes over the whole table.
    Methods of one folder stay rows of their own, also where they gave the same model.

    Args:
        found: folder's name → what it holds; at least one.
    """
    parts = list(found.values())
    if len(parts) == 1:
        return parts[0]
    rows: list[tuple[str, BenchmarkRow]] = []
    twice: list[str] = []
    for name, part in found.items():
        earlier = len(rows)
        for row in part.rows:
            index = next((i for i, (_, other) in enumerate(rows[:earlier]) if _same(other, row)), None)
            if index is None:
                rows.append((name, row))
            else:
                twice.append(f"{row.label} [{name}]")
                rows[index] = (rows[index][0], _joined(rows[index][1], row))
    often = Counter(row.label for _, row in rows)
    labelled = [replace(row, label=f"{row.label} [{name}]") if often[row.label] > 1 else row for name, row in rows]
    told = corrected([row.verdicts for row in labelled])
    named = tuple(replace(row, verdicts=verdicts) for row, verdicts in zip(labelled, told, strict=True))
    samples: dict[str, int] = {}
    for part in parts:
        samples |= {name: count for name, count in part.samples.items() if not samples.get(name)}
    singles = {single.name: single for part in parts for single in part.singles}
    first = parts[0]
    ended = next((part for part in parts if part.state is not RunState.FINISHED), first)
    return replace(
        first,
        task=", ".join(dict.fromkeys(part.task for part in parts)),
        rows=named,
        singles=placed_in((one for one in singles.values() if set(one.tests) == set(samples) - {HELD_OUT}), named),
        samples=samples,
        shifts=tuple(dict.fromkeys(name for part in parts for name in part.shifts)),
        pool=tuple(dict.fromkeys(name for part in parts for name in part.pool)),
        seeds=tuple(dict.fromkeys(seed for part in parts for seed in part.seeds)),
        state=ended.state,
        doubt=next((part.doubt for part in parts if part.doubt), ""),
        limit=ended.limit,
        evaluations=sum(part.evaluations for part in parts),
        wall_seconds=sum(part.wall_seconds for part in parts),
        workers=tuple(dict.fromkeys(worker for part in parts for worker in part.workers)),
        notes=(*_differences(found), *_once(twice), *dict.fromkeys(note for part in parts for note in part.notes)),
        command="",
        header={name: dict(part.header) for name, part in found.items()},
    )


def _once(twice: Sequence[str]) -> Sequence[str]:
    return [f"in a row above, as the same model: {', '.join(twice)}"] if twice else []


def _same(one: BenchmarkRow, other: BenchmarkRow) -> bool:
    """Whether two folders hold one method's model: by what it is, or, where that is not known, by its scores.

    The numbers must be the same but for what another precision changes: other data are another row. A run may have
    left test sets out; a mean over several models is none of them.
    """
    if one.strategy != other.strategy or (
        one.seeds != other.seeds and any({*one.spread.values(), *other.spread.values()})
    ):
        return False
    if one.digest and other.digest:
        both = one.tests.keys() & other.tests.keys()
        if one.digest != other.digest or both not in (one.tests.keys(), other.tests.keys()):
            return False
        pairs = [(one.held_out, other.held_out), *((one.tests[name], other.tests[name]) for name in both)]
        return all(a is not None and b is not None and abs(a - b) <= CLOSE * max(abs(a), 1) for a, b in pairs)
    for mine, theirs in ((one.options, other.options), (one.partitioner, other.partitioner)):
        if mine and theirs and mine != theirs:
            return False
    return (one.strategy, one.held_out, dict(one.tests), one.ingredients, one.status) == (
        other.strategy,
        other.held_out,
        dict(other.tests),
        other.ingredients,
        other.status,
    )


def _joined(one: BenchmarkRow, other: BenchmarkRow) -> BenchmarkRow:
    """One model that two folders have: the row that was scored and tested more, with what only the other one knows."""
    tested = [(len(row.tests), sum(verdict.tested for verdict in row.verdicts)) for row in (one, other)]
    first, second = (one, other) if tested[0] >= tested[1] else (other, one)
    verdicts = {_key(verdict): verdict for verdict in second.verdicts}
    verdicts |= {_key(v): v for v in first.verdicts if v.tested or not verdicts.get(_key(v), v).tested}
    own = [verdicts.pop(_key(verdict)) for verdict in first.verdicts]
    return replace(
        first,
        label=one.label,
        verdicts=(*own, *verdicts.values()),
        coefficients=first.coefficients or second.coefficients,
        trace=first.trace or second.trace,
        options=first.options or second.options,
    )


def _key(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.reference, verdict.against, verdict.set, verdict.measure


def _differences(found: Mapping[str, Benchmark]) -> Sequence[str]:
    """What makes the folders' numbers hard to compare."""
    notes = []
    facts: dict[str, dict[str, str]] = {
        "task": {name: part.task for name, part in found.items()},
        "objective": {name: part.objective for name, part in found.items()},
        "pool": {name: f"{len(part.pool)} models" for name, part in found.items()},
        "held-out samples": {name: f"{part.samples[HELD_OUT]:,}" for name, part in found.items()},
    }
    pools = {part.pool for part in found.values()}
    for what, values in facts.items():
        if len(set(values.values())) > 1 or (what == "pool" and len(pools) > 1):
            said = ", ".join(f"{value} ({name})" for name, value in values.items())
            notes.append(f"the folders differ in {what}: {said}; compare their rows with care")
    return notes
