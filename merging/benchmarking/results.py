"""What a benchmark has found: rows with intervals and paired tests, as plain values that every renderer reads."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.benchmarking.earlier import beside_objective, verdict_of
from merging.benchmarking.runs import Coefficients, MethodRun
from merging.errors import FolderError
from merging.evaluation.comparing import Comparer, Seen
from merging.plugins.task import HELD_OUT
from merging.values.outcome import Outcome, unscored
from merging.values.report import SMALL_SAMPLE, average, best_single, models_of
from merging.values.statistics import Interval, mean_interval, wilson
from merging.values.verdict import ACCURACY, Role, Verdict, corrected

if TYPE_CHECKING:
    from merging.plugins.objective import Objective
    from merging.plugins.task import Task
    from merging.plugins.whole_model_objective import WholeModelObjective
    from merging.storage.pool import ModelPool

FORMAT = "merging-benchmark/2"
EARLIER = "merging-benchmark/1"
"""Had ``against`` instead of ``verdicts``, corrected column by column, and accuracies whatever the objective."""
SHIFTED = str(Role.AVERAGE)
"""The column of the mean over the shifted sets; a test set may well be called "shifted" itself."""
REFERENCES = ("best", "greedy")
"""Methods that every other one is compared with, where they are there; a user may name more."""


def accurate(column: str) -> str:
    """The column of the accuracies that stand beside another objective."""
    return f"{column} ({ACCURACY})"


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
        tests = {key: outcome.score for key, outcome in sets.items() if key != HELD_OUT}
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
        tests: set → score by the objective.
        shifted: mean over the shifted sets.
        accuracies: column → accuracy, beside another objective and where the labels are classes.
        intervals: column → 95 % interval (of accuracies Wilson's, normal for the mean over sets; else a bootstrap's).
        spread: column → standard deviation over the seeds, with more than one.
        seeds: those that were run.
        ingredients: models in it (of the first seed); ``models`` is their mean number.
        evaluations, cached, forward_equivalents, seconds: what it needs alone, means over the seeds.
        inference_cost: forward passes for each sample.
        verdicts: the paired tests, against each reference on each column; corrected over the whole table.
        digest: of the merged model, the same for merges that give the same outputs (the first seed's).
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
    verdicts: tuple[Verdict, ...] = ()
    accuracies: Mapping[str, float] = field(default_factory=dict)
    digest: str = ""
    coefficients: Coefficients | None = None
    trace: tuple[tuple[float, int, float], ...] = ()

    @property
    def finished(self) -> bool:
        """Whether it has scores."""
        return self.held_out is not None

    def value(self, column: str) -> float | None:
        """A column's score: held-out, a test set's, or the mean of the shifted sets; or an accuracy beside one."""
        beside = {accurate(name): value for name, value in self.accuracies.items()}
        return {HELD_OUT: self.held_out, SHIFTED: self.shifted}.get(column, self.tests.get(column, beside.get(column)))

    def verdict(self, reference: str, column: str) -> Verdict | None:
        """What the test against a reference says of a column; None of what is not compared with it."""
        named = (v for v in self.verdicts if v.reference == reference)
        return next((v for v in named if column == (accurate(v.set) if v.extra else v.set)), None)


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
        measure: what the scores are: ``accuracy``, or the objective's name.
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
    measure: str = ACCURACY

    @property
    def sets(self) -> tuple[str, ...]:
        """The test sets' names."""
        return tuple(name for name in self.samples if name != HELD_OUT)

    @property
    def columns(self) -> tuple[str, ...]:
        """Held-out, every test set, and the mean of the shifted ones where there are any; accuracies beside them."""
        own = (HELD_OUT, *self.sets, *([SHIFTED] if self.shifts else []))
        return (*own, *(accurate(name) for name in own if any(name in row.accuracies for row in self.rows)))

    @property
    def references(self) -> tuple[str, ...]:
        """What the methods are compared with."""
        found = dict.fromkeys(v.reference for row in self.rows for v in row.verdicts)
        return tuple(sorted(found, key=lambda name: REFERENCES.index(name) if name in REFERENCES else len(REFERENCES)))

    def against(self, reference: str) -> str:
        """A reference in words; of several folders with other best single models, all of them."""
        words = dict.fromkeys(v.against for row in self.rows for v in row.verdicts if v.reference == reference)
        return " or ".join(words) or reference

    def percent(self, column: str) -> bool:
        """Whether a column holds accuracies, shown in percent."""
        beside = {accurate(name) for row in self.rows for name in row.accuracies}
        return self.measure == ACCURACY or column in beside

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
        if data["format"] not in (FORMAT, EARLIER):
            raise ValueError(f"format {data['format']!r} is not {FORMAT!r}")
        data = _of_today(data) if data["format"] == EARLIER else data
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
    objective: Objective | WholeModelObjective,
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
    comparer = Comparer(objective, task)
    table = [_seen(group) for group in grouped.values()]
    rows: list[tuple[BenchmarkRow, list[MethodRun]]] = []
    for method in methods:
        groups = {label: grouped.get((method, label), []) for label in partitions}
        joined = len({_content(group) for group in groups.values()}) == 1
        for label, group in list(groups.items())[: 1 if joined else None]:
            own = label if not joined or len(partitions) == 1 else None
            name = method if joined else f"{method} ({label})"
            rows.append((_row(name, method, own, group, comparer, table, pool.names), group))
    if len(task.held_out) < SMALL_SAMPLE:
        luck = f"only {len(task.held_out)} held-out samples: below {SMALL_SAMPLE:,} a gain is easily luck"
        notes = [*notes, luck]
    return Benchmark(
        task.name,
        objective.name,
        _compared(rows, comparer, table, references),
        singles,
        {HELD_OUT: len(task.held_out), **{name: len(split) for name, split in task.tests.items()}},
        task.shifts,
        pool.names,
        seeds,
        status,
        evaluations,
        wall_seconds,
        tuple(notes),
        command,
        header,
        comparer.measure,
    )


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


def _seen(group: Sequence[MethodRun]) -> Seen:
    """Set → the outcomes of all finished seeds."""
    good = [run for run in group if run.status == "finished"]
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
    good = [run for run in group if run.status == "finished"]
    if not group:
        return BenchmarkRow(method, label, partition, status="not run", why="interrupted before")
    plain = BenchmarkRow(
        group[0].entry["strategy"]["name"],
        label,
        partition,
        group[0].entry["strategy"]["options"],
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
    fails = [run for run in group if run.status != "finished"]
    same = len({run.digest for run in good}) == 1
    idle = ["each seed gave the same merge"] if len(good) > 1 and same else []
    blank = [said for run in good if (said := unscored(run.outcomes, objective))]
    remarks = [*plain.why.splitlines(), *blank, *idle, *(f"seed {run.seed} {run.status}: {run.why}" for run in fails)]
    return replace(
        plain,
        status="finished",
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
        before, against = _seen(rows[home][1]), in_words(reference, rows[home][0])
        for i, (row, group) in enumerate(rows):
            if i != home and row.finished:
                verdicts[i] += comparer.verdicts(
                    sets, before, _seen(group), reference=reference, against=against, among=table
                )
    found = corrected(verdicts)
    return tuple(replace(row, verdicts=told) for (row, _), told in zip(rows, found, strict=True))


def in_words(reference: str, row: BenchmarkRow) -> str:
    """What a row is called where others are compared with it."""
    if reference == "best":
        return best_single(row.ingredients[0] if len(row.ingredients) == 1 else None)
    return "the greedy soup" if reference == "greedy" else reference


def _of_today(data: dict[str, Any]) -> dict[str, Any]:
    """A result of the earlier format, its tests corrected as they are now."""
    objective, shifts = data["objective"], data["shifts"]
    ingredients = {row["label"]: row["ingredients"] for row in data["rows"]}
    rows, verdicts = [], []
    for row in data["rows"]:
        told = []
        for reference, columns in row["against"].items():
            home = BenchmarkRow(reference, reference, ingredients=tuple(ingredients.get(reference, ())))
            told += [
                verdict_of(
                    name,
                    found,
                    shifts=shifts,
                    reference=reference,
                    against=in_words(reference, home),
                    objective=objective,
                )
                for name, found in columns.items()
            ]
        verdicts.append(told)
        rows.append(beside_objective({key: value for key, value in row.items() if key != "against"}, objective))
    rows = [
        row | {"verdicts": [verdict.to_json() for verdict in told]}
        for row, told in zip(rows, corrected(verdicts), strict=True)
    ]
    return data | {"rows": rows, "measure": objective}


def _row_to_json(row: BenchmarkRow) -> dict[str, Any]:
    data = asdict(replace(row, coefficients=None, verdicts=()))
    data["verdicts"] = [verdict.to_json() for verdict in row.verdicts]
    return data | {"coefficients": row.coefficients.to_json() if row.coefficients else None}


def _row_from_json(data: dict[str, Any]) -> BenchmarkRow:
    values = dict(data)
    for key in ("seeds", "ingredients"):
        values[key] = tuple(values[key])
    values["trace"] = tuple((float(a), int(b), float(c)) for a, b, c in values["trace"])
    values["intervals"] = {name: (low, high) for name, (low, high) in values["intervals"].items()}
    values["coefficients"] = Coefficients.from_json(data["coefficients"]) if data["coefficients"] else None
    values["verdicts"] = tuple(Verdict.from_json(found) for found in data["verdicts"])
    return BenchmarkRow(**values)
