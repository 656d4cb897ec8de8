"""What a benchmark has found: rows with intervals and paired tests, as plain values that every renderer reads."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from merging.benchmarking.runs import Coefficients, MethodRun
from merging.errors import FolderError
from merging.plugins.task import HELD_OUT
from merging.values.outcome import Outcome, unscored
from merging.values.report import SMALL_SAMPLE, average, models_of
from merging.values.statistics import Comparison, Correctness, holm, mean_interval, paired, wilson

if TYPE_CHECKING:
    from merging.plugins.task import Task
    from merging.storage.pool import ModelPool

FORMAT = "merging-benchmark/1"
SHIFTED = "average of shifts"
"""The column of the mean over the shifted sets; a test set may well be called "shifted" itself."""
REFERENCES = ("best", "greedy")
"""Methods that every other one is compared with, where they are there; a user may name more."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Single:
    """One model of the pool; scores as fractions."""

    name: str
    held_out: float
    tests: Mapping[str, float]
    shifted: float | None

    @classmethod
    def of(cls, name: str, sets: Mapping[str, Outcome], shifts: Sequence[str]) -> Single:
        """From its outcomes."""
        tests = {key: _value(key, outcome) for key, outcome in sets.items() if key != HELD_OUT}
        return cls(name, sets[HELD_OUT].score, tests, average([tests[key] for key in shifts]))


@dataclass(frozen=True)
class BenchmarkRow:
    """A method's line; scores are fractions, and means over the seeds.

    Attributes:
        strategy: the strategy's registered name.
        label: what tables call it.
        partitioner: the partition; None where it makes no difference.
        options: the strategy's.
        status: ``finished``, ``cannot run``, ``failed``, or ``not run`` (interrupted before).
        why: a reason, or a remark.
        held_out: score on the data that selected (optimistic for what was selected).
        tests: set → accuracy (or score, where the objective knows no samples).
        shifted: mean over the shifted sets.
        intervals: column → 95 % interval (Wilson; normal for the mean over sets).
        spread: column → standard deviation over the seeds, with more than one.
        seeds: those that were run.
        ingredients: models in it (of the first seed); ``models`` is their mean number.
        evaluations, cached, forward_equivalents, seconds: what it needs alone, means over the seeds.
        inference_cost: forward passes for each sample.
        against: reference → column → the paired comparison.
        coefficients: of a linear merge (the first seed's).
        trace: how the best held-out score rose (the first seed's).
    """

    strategy: str
    label: str
    partitioner: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    status: str = "finished"
    why: str = ""
    held_out: float | None = None
    tests: Mapping[str, float] = field(default_factory=dict)
    shifted: float | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    ingredients: tuple[str, ...] = ()
    models: float = 0.0
    evaluations: float = 0.0
    cached: float = 0.0
    forward_equivalents: float = 0.0
    seconds: float = 0.0
    inference_cost: int = 1
    against: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)
    coefficients: Coefficients | None = None
    trace: tuple[tuple[float, int, float], ...] = ()

    @property
    def finished(self) -> bool:
        """Whether it has scores."""
        return self.held_out is not None

    def value(self, column: str) -> float | None:
        """A column's score: held-out, a test set's, or the mean of the shifted sets."""
        return {HELD_OUT: self.held_out, SHIFTED: self.shifted}.get(column, self.tests.get(column))


@dataclass(frozen=True)
class Benchmark:
    """Everything that a benchmark has found; ``to_json`` is ``benchmark.json``.

    Attributes:
        rows: a method each, in the order in which they were asked for.
        singles: every model of the pool, where they were scored.
        samples: set → number of samples, ``held-out`` among them.
        shifts: the shifted sets.
        evaluations: distinct held-out evaluations, by all methods and single models together.
        wall_seconds: what this session took.
        header: versions, hashes, numerics: what the scores were measured under.
    """

    task: str
    objective: str
    rows: tuple[BenchmarkRow, ...]
    singles: tuple[Single, ...]
    samples: Mapping[str, int]
    shifts: tuple[str, ...]
    pool: tuple[str, ...]
    seeds: tuple[int, ...]
    status: str = "finished"
    evaluations: int = 0
    wall_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    command: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sets(self) -> tuple[str, ...]:
        """The test sets' names."""
        return tuple(name for name in self.samples if name != HELD_OUT)

    @property
    def columns(self) -> tuple[str, ...]:
        """Held-out, every test set, and the mean of the shifted ones where there are any."""
        return (HELD_OUT, *self.sets, *([SHIFTED] if self.shifts else []))

    @property
    def references(self) -> tuple[str, ...]:
        """What the methods are compared with."""
        found = dict.fromkeys(name for row in self.rows for name in row.against)
        return tuple(sorted(found, key=lambda name: (*REFERENCES, name).index(name)))

    def percent(self, column: str) -> bool:
        """Whether a column holds accuracies: of the objective, or counted where it tells samples apart."""
        counted = column != HELD_OUT and any(column in row.intervals for row in self.rows)
        return self.objective == "accuracy" or counted

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values: fractions, seconds, forward passes over the held-out data."""
        data = asdict(replace(self, rows=()))
        data["rows"] = [_row_to_json(row) for row in self.rows]
        return {"format": FORMAT, **data}

    def dumps(self) -> str:
        """The text of ``benchmark.json``."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Benchmark:
        """Reads :meth:`to_json` back."""
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r} is not {FORMAT!r}")
        values = {key: value for key, value in data.items() if key != "format"}
        values |= {key: tuple(values[key]) for key in ("shifts", "pool", "seeds", "notes")}
        values["singles"] = tuple(Single(**single) for single in data["singles"])
        values["rows"] = tuple(_row_from_json(row) for row in data["rows"])
        return cls(**values)

    @classmethod
    def read(cls, path: Path) -> Benchmark:
        """Reads a ``benchmark.json``.

        Raises:
            FolderError: it is damaged.
        """
        try:
            return cls.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FolderError(f"{path} is no benchmark's result, or damaged: {type(error).__name__}: {error}") from None


def gather(
    runs: Sequence[MethodRun],
    singles: tuple[Single, ...],
    *,
    task: Task,
    pool: ModelPool,
    methods: Sequence[str],
    partitions: Sequence[str],
    seeds: tuple[int, ...],
    header: Mapping[str, Any],
    objective: str,
    status: str,
    evaluations: int,
    wall_seconds: float,
    notes: Sequence[str],
    command: str,
    references: Sequence[str] = REFERENCES,
) -> Benchmark:
    """Rows from runs: seeds averaged, partitions that make no difference joined, everything tested in pairs."""
    grouped: dict[tuple[str, str], list[MethodRun]] = {}
    for run in runs:
        grouped.setdefault((run.entry["method"], run.entry["partition"]), []).append(run)
    refused = _refused(grouped, methods, partitions)
    partitions = [label for label in partitions if label not in refused]
    notes = [*notes, *(f"no method was run under {label}: {why}" for label, why in refused.items())]
    rows: list[tuple[BenchmarkRow, list[MethodRun]]] = []
    for method in methods:
        groups = {label: grouped.get((method, label), []) for label in partitions}
        joined = len({_content(group) for group in groups.values()}) == 1
        for label, group in list(groups.items())[: 1 if joined else None]:
            own = label if not joined or len(partitions) == 1 else None
            name = method if joined else f"{method} ({label})"
            rows.append((_row(name, method, own, group, task, objective, pool.names), group))
    if len(task.held_out) < SMALL_SAMPLE:
        luck = f"only {len(task.held_out)} held-out samples: below {SMALL_SAMPLE:,} a gain is easily luck"
        notes = [*notes, luck]
    return Benchmark(
        task.name, objective, _compared(rows, task, objective, references), singles,
        {HELD_OUT: len(task.held_out), **{name: len(split) for name, split in task.tests.items()}}, task.shifts,
        pool.names, seeds, status, evaluations, wall_seconds, tuple(notes), command, header,
    )  # fmt: skip


def _refused(
    grouped: Mapping[tuple[str, str], Sequence[MethodRun]], methods: Sequence[str], partitions: Sequence[str]
) -> dict[str, str]:
    """Partitions that do not fit the model, and why: one note is enough, where another partition does fit."""
    found = {}
    for label in partitions:
        runs = [run for method in methods for run in grouped.get((method, label), [])]
        reasons = {run.why for run in runs if run.status == "cannot run"}
        if len(reasons) == 1 and all(run.status == "cannot run" for run in runs):
            found[label] = reasons.pop()
    return found if len(found) < len(partitions) else {}


def _content(group: Sequence[MethodRun]) -> tuple[Any, ...]:
    """What tells two partitions' runs of a method apart."""
    return tuple((run.seed, run.status, run.digest or run.why) for run in group)


def _value(name: str, outcome: Outcome) -> float:
    """The objective's score, on every set."""
    del name
    return outcome.score


def _row(
    label: str, method: str, partition: str | None, group: Sequence[MethodRun], task: Task, objective: str,
    pool: Sequence[str],
) -> BenchmarkRow:  # fmt: skip
    good = [run for run in group if run.status == "finished"]
    if not group:
        return BenchmarkRow(method, label, partition, status="not run", why="interrupted before")
    plain = BenchmarkRow(
        group[0].entry["strategy"]["name"], label, partition, group[0].entry["strategy"]["options"],
        status=group[0].status, why=group[0].why,
    )  # fmt: skip
    if not good:
        return plain
    scores = {name: [_value(name, run.outcomes[name]) for run in good] for name in good[0].outcomes}
    if task.shifts:
        scores[SHIFTED] = [statistics.fmean(scores[name][i] for name in task.shifts) for i in range(len(good))]
    means = {name: statistics.fmean(values) for name, values in scores.items()}
    intervals = {}
    counted = {n: o.samples for n, o in good[0].outcomes.items() if objective == "accuracy"}
    for name, samples in counted.items():
        intervals[name] = wilson(means[name], samples)
    if task.shifts and all(name in counted for name in task.shifts):
        intervals[SHIFTED] = mean_interval([means[n] for n in task.shifts], [counted[n] for n in task.shifts])
    fails = [run for run in group if run.status != "finished"]
    same = len({run.digest for run in good}) == 1
    idle = ["each seed gave the same merge"] if len(good) > 1 and same else []
    blank = [said for run in good if (said := unscored(run.outcomes, objective))]
    remarks = [*plain.why.splitlines(), *blank, *idle, *(f"seed {run.seed} {run.status}: {run.why}" for run in fails)]
    return replace(
        plain, status="finished", why="; ".join(dict.fromkeys(remarks)), held_out=means[HELD_OUT],
        tests={name: means[name] for name in task.tests}, shifted=means.get(SHIFTED), intervals=intervals,
        spread={n: statistics.stdev(values) for n, values in scores.items()} if len(good) > 1 else {},
        seeds=tuple(run.seed for run in good), ingredients=good[0].ingredients,
        models=statistics.fmean(models_of(run.ingredients, pool) for run in good),
        evaluations=_mean(good, "evaluations"), cached=_mean(good, "cached"),
        forward_equivalents=_mean(good, "forward_equivalents"), seconds=_mean(good, "seconds"),
        inference_cost=max(run.inference_cost for run in good), coefficients=good[0].coefficients,
        trace=good[0].trace,
    )  # fmt: skip


def _mean(runs: Sequence[MethodRun], name: str) -> float:
    mean = statistics.fmean(getattr(run, name) for run in runs)
    return int(mean) if mean == int(mean) and name in ("evaluations", "cached") else mean


def _compared(
    rows: Sequence[tuple[BenchmarkRow, list[MethodRun]]], task: Task, objective: str, references: Sequence[str]
) -> tuple[BenchmarkRow, ...]:
    """The rows with their paired tests; Holm's correction goes over the methods of one column and reference."""
    own = {HELD_OUT: (HELD_OUT,)} if objective == "accuracy" else {}
    columns = own | {name: (name,) for name in task.tests} | ({SHIFTED: task.shifts} if task.shifts else {})
    against: list[dict[str, dict[str, Comparison]]] = [{} for _ in rows]
    hits = [{name: _correctness(group, name) for name in (HELD_OUT, *task.tests)} for _, group in rows]
    named = [{row.strategy, *(run.entry["method"] for run in group)} for row, group in rows]
    for reference in references:
        which = [i for i, (row, _) in enumerate(rows) if reference in named[i] and row.finished]
        home = next((i for i in which if rows[i][0].label == reference), which[0] if which else None)
        if home is None:
            continue
        for column, parts in columns.items():
            tested: dict[int, Comparison] = {}
            for i, (row, _) in enumerate(rows):
                before, after = [hits[home][name] for name in parts], [hits[i][name] for name in parts]
                if i != home and row.finished and not any(part is None for part in (*before, *after)):
                    tested[i] = paired([p for p in before if p is not None], [p for p in after if p is not None])
            corrected = holm([found.p_value for found in tested.values()])
            for (i, found), adjusted in zip(tested.items(), corrected, strict=True):
                against[i].setdefault(reference, {})[column] = replace(found, adjusted=adjusted)
    return tuple(replace(row, against=found) for (row, _), found in zip(rows, against, strict=True))


def _correctness(runs: Sequence[MethodRun], name: str) -> Correctness | None:
    """Share of the seeds that have each sample right, or None where samples are not told apart."""
    outcomes = [run.outcomes[name] for run in runs if run.status == "finished"]
    if not outcomes or any(outcome.correct is None for outcome in outcomes):
        return None
    mean: Correctness = np.mean([outcome.hits for outcome in outcomes], axis=0, dtype=np.float64)
    return mean


def _row_to_json(row: BenchmarkRow) -> dict[str, Any]:
    data = asdict(replace(row, coefficients=None, against={}))
    data["against"] = {
        reference: {name: asdict(found) | {"significant": found.significant} for name, found in columns.items()}
        for reference, columns in row.against.items()
    }
    return data | {"coefficients": row.coefficients.to_json() if row.coefficients else None}


def _row_from_json(data: dict[str, Any]) -> BenchmarkRow:
    values = dict(data)
    for key in ("seeds", "ingredients"):
        values[key] = tuple(values[key])
    values["trace"] = tuple((float(a), int(b), float(c)) for a, b, c in values["trace"])
    values["intervals"] = {name: (low, high) for name, (low, high) in values["intervals"].items()}
    values["coefficients"] = Coefficients.from_json(data["coefficients"]) if data["coefficients"] else None
    values["against"] = {
        reference: {
            name: Comparison(**{k: v for k, v in found.items() if k != "significant"} | {
                "interval": tuple(found["interval"])})
            for name, found in columns.items()
        }
        for reference, columns in data["against"].items()
    }  # fmt: skip
    return BenchmarkRow(**values)
