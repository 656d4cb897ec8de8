"""What a benchmark has found: rows with intervals and paired tests, as plain values that every renderer reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from merging.benchmarking.earlier import of_today
from merging.benchmarking.runs import Coefficients
from merging.benchmarking.views import BenchmarkViews
from merging.errors import DAMAGED, FolderError, FormatError, raised, reason_of
from merging.plugins.task import HELD_OUT
from merging.values.formats import BENCHMARK, check_format, known_fields, parsed
from merging.values.leaderboard import Single as Single
from merging.values.leaderboard import with_soups
from merging.values.report import number
from merging.values.shown import Sheet, Shown
from merging.values.states import MethodState, RunState, status_of, unworded, worded
from merging.values.statistics import Interval
from merging.values.verdict import ACCURACY, Role, Verdict
from merging.values.wording import kind_of, some
from merging.values.workers import WorkerFacts

EARLIER = "merging-benchmark/1"
"""Had ``against`` instead of ``verdicts``, corrected column by column, and accuracies whatever the objective."""
SHIFTED = str(Role.AVERAGE)
"""The column of the mean over the shifted sets; a test set may well be called "shifted" itself."""
COMPARED = ("run", "folders", "held", "averages", "apart", "why", "left_out")
"""Fields of a result that a benchmark's own has none of; its file has them where there is something to say."""
REFERENCES = ("best", "greedy")
"""Methods that every other one is compared with, where they are there; a user may name more."""


def accurate(column: str) -> str:
    """The column of the accuracies that stand beside another objective."""
    return f"{column} ({ACCURACY})"


@dataclass(frozen=True, kw_only=True, repr=False)
class BenchmarkRow(Shown):
    """A method's line; scores are fractions, and means over the seeds.

    Attributes:
        strategy: the strategy's registered name.
        label: what tables call it.
        partitioner: the partition; None where it makes no difference.
        options: the strategy's.
        status: how it has ended.
        why: a reason, or a remark.
        held_out: score on the data that selected (optimistic for what was selected).
        tests: set → score by the objective.
        shifted: mean over the shifted sets.
        accuracies: column → accuracy, beside another objective and where the labels are classes.
        intervals: column → 95 % interval (of accuracies Wilson's, normal for the mean over sets; else a bootstrap's).
        spread: column → standard deviation over the seeds, with more than one.
        seeds: seeds that were run.
        ingredients: models in it (of the first seed); ``models`` is their mean number.
        evaluations, cached, forward_equivalents, seconds: what it needs alone, means over the seeds.
        inference_cost: forward passes for each sample.
        verdicts: the paired tests, against each reference on each column; corrected over the whole table.
        digest: digest of the merged model, the same for merges that give the same outputs (the first seed's).
        coefficients: coefficients of a linear merge (the first seed's).
        trace: how the best held-out score rose (the first seed's).
        folders: folders that the row is of, where several are compared.
    """

    strategy: str
    label: str
    partitioner: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    status: MethodState = MethodState.FINISHED
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
    folders: tuple[str, ...] = ()

    def _sheet(self) -> Sheet:
        scores = {HELD_OUT: self.held_out, **self.tests}
        said = some([f"{name} {number(value, percent=False)}" for name, value in scores.items()], 6)
        ended = "" if self.status is MethodState.FINISHED else f"{self.status}: {self.why}"
        return Sheet(name="BenchmarkRow", facts=(self.label, ended or said))

    @property
    def named(self) -> str:
        """The label, and of the best single model which one it is."""
        known = self.strategy == "best" and len(self.ingredients) == 1
        return f"{self.label} ({self.ingredients[0]})" if known else self.label

    @property
    def finished(self) -> bool:
        """Whether it has scores."""
        return self.held_out is not None or bool(self.tests)

    def value(self, column: str) -> float | None:
        """A column's score: held-out, a test set's, or the mean of the shifted sets; or an accuracy beside one."""
        beside = {accurate(name): value for name, value in self.accuracies.items()}
        return {HELD_OUT: self.held_out, SHIFTED: self.shifted}.get(column, self.tests.get(column, beside.get(column)))

    def verdict(self, reference: str, column: str) -> Verdict | None:
        """Finds the verdict against a reference in a column; None where there is no such test."""
        named = (v for v in self.verdicts if v.reference == reference)
        return next((v for v in named if column == (accurate(v.set) if v.extra else v.set)), None)


@dataclass(frozen=True, kw_only=True, repr=False)
class Benchmark(BenchmarkViews):
    """Everything that a benchmark has found; ``to_json`` is ``benchmark.json``.

    Attributes:
        rows: a method each, in the order in which they were asked for.
        singles: every model of the pool, where they were scored.
        samples: set → number of samples, ``held-out`` among them.
        shifts: the shifted sets.
        state: how it has ended; ``status`` says it in words, as ``benchmark.json`` does.
        evaluations: distinct held-out evaluations, by all methods and single models together.
        wall_seconds: what this session took.
        header: versions, hashes, numerics: what the scores were measured under.
        measure: what the scores are: ``accuracy``, or the objective's name.
        limit: evaluations that a single run was allowed, where one was read and these are used up.
        doubt: the warning that a model is no better than a guess; empty where there is none.
        workers: the workers that have evaluated in this session; none where this process did it alone.
        run: strategy of the run whose rows these are; empty of a benchmark, and of several folders.
        folders: folders that are compared.
        held: further columns of held-out data: of folders that have other samples than the first.
        averages: further columns of averages of shifted sets, over other sets than the first.
        apart: results that cannot stand in one table with these, table by table.
        why: the reason why these stand apart from those above.
        left_out: folder → the reason why nothing of it is compared.
    """

    task: str
    objective: str
    rows: tuple[BenchmarkRow, ...]
    singles: tuple[Single, ...]
    samples: Mapping[str, int]
    shifts: tuple[str, ...]
    pool: tuple[str, ...]
    seeds: tuple[int, ...]
    state: RunState = RunState.FINISHED
    evaluations: int = 0
    wall_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    command: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)
    measure: str = ACCURACY
    limit: int | None = None
    doubt: str = ""
    workers: tuple[WorkerFacts, ...] = ()
    run: str = ""
    folders: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    averages: tuple[str, ...] = ()
    apart: tuple[Benchmark, ...] = ()
    why: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The state of the benchmark in words, as ``benchmark.json`` has it."""
        return status_of(self.state, self.limit)

    @property
    def sets(self) -> tuple[str, ...]:
        """The test sets' names."""
        return tuple(name for name in self.samples if name not in (HELD_OUT, *self.held))

    @property
    def columns(self) -> tuple[str, ...]:
        """Held-out, every test set, and the mean of the shifted ones where there are any; accuracies beside them."""
        own = (HELD_OUT, *self.held, *self.sets, *([SHIFTED] if self.shifts else []), *self.averages)
        return (*own, *(accurate(name) for name in own if any(name in row.accuracies for row in self.rows)))

    @property
    def references(self) -> tuple[str, ...]:
        """Names the rows that methods are compared with."""
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
        data = worded(asdict(replace(self, rows=(), apart=())))
        data["rows"] = [_row_to_json(row) for row in self.rows]
        data["apart"] = [part.to_json() for part in self.apart]
        return {"format": BENCHMARK, **{name: value for name, value in data.items() if value or name not in COMPARED}}

    def dumps(self) -> str:
        """The text of ``benchmark.json``."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Benchmark:
        """Makes the benchmark from what :meth:`to_json` gave."""
        check_format(data["format"], BENCHMARK, (EARLIER,))
        data = of_today(data) if data["format"] == EARLIER else data
        values = known_fields(cls, unworded(data))
        lists = ("shifts", "pool", "seeds", "notes", "folders", "held", "averages")
        values |= {key: tuple(values[key]) for key in lists if key in values}
        values["apart"] = tuple(cls.from_json(part) for part in data.get("apart", ()))
        values["singles"] = tuple(Single.from_json(single) for single in data["singles"])
        values["workers"] = tuple(WorkerFacts.from_json(worker) for worker in data.get("workers", ()))
        values["rows"] = tuple(_row_from_json(row) for row in data["rows"])
        return cls(**values)

    @classmethod
    def read(cls, path: Path | str) -> Benchmark:
        """Reads a ``benchmark.json``, of this version or an earlier one.

        Args:
            path: the file, or the benchmark's folder.

        Raises:
            FolderError: there is none, or it is damaged.
        """
        if not isinstance(path, str | os.PathLike):
            raise FolderError(f"{kind_of(path)} is no benchmark's result; give the path of a benchmark.json")
        path = Path(path).expanduser()
        path = path / "benchmark.json" if path.is_dir() else path
        try:
            return cls.from_json(parsed(path.read_bytes()))
        except FormatError as error:
            raise FolderError(f"{path}: {error}") from None
        except OSError as error:
            raise FolderError(f"cannot read a benchmark's result at {path}: {reason_of(error)}") from None
        except DAMAGED as error:
            raise FolderError(f"{path} is no benchmark's result, or damaged: {raised(error, whole=True)}") from None


def placed_in(singles: Iterable[Single], rows: Iterable[BenchmarkRow]) -> tuple[Single, ...]:
    """The models of a pool, each with the labels of the rows whose merge it is in; the best single model is none."""
    soups = {row.label: row.ingredients for row in rows if row.finished and row.strategy != "best"}
    return with_soups(singles, soups)


def _row_to_json(row: BenchmarkRow) -> dict[str, Any]:
    data = asdict(replace(row, coefficients=None, verdicts=()))
    data = {name: value for name, value in data.items() if value or name != "folders"}
    data["verdicts"] = [verdict.to_json() for verdict in row.verdicts]
    return data | {"coefficients": row.coefficients.to_json() if row.coefficients else None}


def _row_from_json(data: dict[str, Any]) -> BenchmarkRow:
    values = known_fields(BenchmarkRow, data) | {"status": MethodState(data["status"])}
    for key in ("seeds", "ingredients", "folders"):
        values[key] = tuple(values.get(key, ()))
    values["trace"] = tuple((float(a), int(b), float(c)) for a, b, c in values["trace"])
    values["intervals"] = {name: (low, high) for name, (low, high) in values["intervals"].items()}
    values["coefficients"] = Coefficients.from_json(data["coefficients"]) if data["coefficients"] else None
    values["verdicts"] = tuple(Verdict.from_json(found) for found in data["verdicts"])
    return BenchmarkRow(**values)
