"""Models on the tasks of lm-eval: paired tests against one of them, sample by sample, corrected over the table."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merging.errors import unknown
from merging.harness.measures import Measured, Values, measured
from merging.harness.results import NONE, Column, Results
from merging.harness.samples import Logged, other_samples, read
from merging.values.report import scored
from merging.values.shown import Cell, Grid, Sheet, Shown
from merging.values.statistics import (
    FEW,
    LEVEL,
    Comparison,
    Interval,
    bootstrapped,
    mean_interval,
    paired,
    wilson,
)
from merging.values.told import KINDS
from merging.values.verdict import ACCURACY, Family, Role, Verdict, corrected, legend, mark, word
from merging.values.wording import plural


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one task, as it stands in a table.

    Attributes:
        task: the task, or the group of tasks.
        column: metric and filter.
        lower: whether a smaller score is the better one.
        parts: rows that a group is made of; none: it is a task.
        inside: how many groups it is in.
    """

    task: str
    column: Column
    lower: bool = False
    parts: tuple[tuple[str, Column], ...] = ()
    inside: int = 0

    @property
    def key(self) -> tuple[str, Column]:
        """The row's task and column, which tell it apart."""
        return self.task, self.column

    @property
    def label(self) -> str:
        """Name of the row in tables: task and metric, and the filter where there is one."""
        metric, filtered = self.column
        return f"{self.task} {metric}" + (f" ({filtered})" if filtered != NONE else "")


@dataclass(frozen=True, kw_only=True, repr=False)
class Scores(Shown):
    """Scores of one model on all tasks.

    Attributes:
        name: what tables call it.
        results: what lm-eval has written of it.
        scores: label of a row → score, as lm-eval has computed it.
        intervals: label → 95 % interval, where there is one.
        samples: label → number of samples.
        verdicts: the paired tests against the reference, corrected over the whole table.
    """

    name: str
    results: Results
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()

    def verdict(self, label: str) -> Verdict | None:
        """The test of a row; None for the reference."""
        return next((verdict for verdict in self.verdicts if verdict.set == label), None)

    def _sheet(self) -> Sheet:
        told = [f"{label} {score:.4g}" for label, score in self.scores.items()]
        return Sheet(name="Scores", facts=(self.name, *told[:4]))


@dataclass(frozen=True, kw_only=True, repr=False)
class Compared(Shown):
    """Models on the same tasks.

    Attributes:
        rows: the metrics of the tasks, groups before what is in them.
        models: the models, in the order in which they were named.
        reference: name of the one that the others are compared with.
        percent: labels of the rows whose scores are shares of right answers.
    """

    rows: tuple[Row, ...]
    models: tuple[Scores, ...]
    reference: str
    percent: frozenset[str]

    def _sheet(self) -> Sheet:
        rows: list[list[str | Cell]] = []
        for row in self.rows:
            cells: list[str | Cell] = [row.label + (" ↓" if row.lower else "")]
            for model in self.models:
                told, score = model.verdict(row.label), model.scores.get(row.label)
                text = scored(score, ACCURACY if row.label in self.percent else row.column[0])
                cells.append(Cell(text, mark(told), KINDS.get(word(told), "")) if told is not None else Cell(text))
            rows.append(cells)
        several = len(self.models) > 1
        return Sheet(
            name="Compared",
            facts=(plural(len(self.models), "model"), plural(len(self.rows), "metric"), f"against {self.reference}"),
            grids=(Grid(("", *(model.name for model in self.models)), rows),),
            notes=(legend(self.reference),) if several else (),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values: what ``merge harness --json`` prints."""
        rows = [
            {
                "name": row.label,
                "task": row.task,
                "metric": row.column[0],
                "filter": row.column[1],
                "higher_is_better": not row.lower,
                "group": bool(row.parts),
            }
            for row in self.rows
        ]
        return {"reference": self.reference, "measures": rows, "models": [self._model(model) for model in self.models]}

    def _model(self, model: Scores) -> dict[str, Any]:
        measures = {
            label: {
                "score": score,
                "score_interval": None if (found := model.intervals.get(label)) is None else list(found),
                "samples": model.samples[label],
            }
            for label, score in model.scores.items()
        }
        told = [verdict.to_json() for verdict in model.verdicts]
        return {
            "model": model.name,
            "results": str(model.results.path),
            "lm_eval_version": model.results.version,
            "measures": measures,
            "verdicts": told,
        }


def compared(found: Mapping[str, Results], *, against: str = "", metrics: Sequence[str] = ()) -> Compared:
    """Compares models on the samples that they have in common with one of them.

    A metric whose samples are right or wrong is compared by McNemar's test, every other one by a paired bootstrap over
    the samples. Tests of tasks and groups that stand alone are one family, those of the tasks in groups another.

    Args:
        found: name → results.
        against: name of the model that the others are compared with; default: the first.
        metrics: metrics that are looked at; default: all.

    Raises:
        MergingError: a file of samples is damaged, or an unknown name.
        RequirementError: samples were not logged.
    """
    if against and against not in found:
        raise unknown("model", against, found)
    reference = against or next(iter(found))
    rows = tuple(_rows(found.values(), metrics))
    table = _Table(found, rows)
    told = {name: [table.verdict(row, reference, name) for row in rows] for name in found if name != reference}
    verdicts = dict(zip(told, _corrected(list(told.values())), strict=True))
    models = tuple(
        Scores(
            name=name,
            results=results,
            scores={row.label: table.score(name, row) for row in rows if table.has(name, row)},
            intervals={row.label: i for row in rows if (i := table.interval(name, row)) is not None},
            samples={row.label: table.samples(name, row) for row in rows if table.has(name, row)},
            verdicts=verdicts.get(name, ()),
        )
        for name, results in found.items()
    )
    return Compared(rows=rows, models=models, reference=reference, percent=table.percent)


def _rows(found: Sequence[Results] | Any, metrics: Sequence[str]) -> Iterator[Row]:
    """The rows of all models, each once, in the order of the first that has it.

    Raises:
        MergingError: a metric that no task has.
    """
    seen: set[tuple[str, Column]] = set()
    known: set[str] = set()
    for results in found:
        depth = _depths(results)
        for name, task in results.tasks.items():
            for column in task.scores:
                known.add(column[0])
                if (name, column) in seen or (metrics and column[0] not in metrics):
                    continue
                seen.add((name, column))
                leaves = results.leaves(name) if task.parts else ()
                parts = tuple((leaf, column) for leaf in leaves if column in results.scores(leaf))
                yield Row(
                    task=name,
                    column=column,
                    lower=column[0] in task.lower,
                    parts=parts,
                    inside=depth.get(name, 0),
                )
    for metric in metrics:
        if metric not in known:
            raise unknown("metric", metric, known)


def _depths(results: Results) -> dict[str, int]:
    """Name → in how many groups with scores it is, one in the other."""
    depth = dict.fromkeys(results.tasks, 0)
    for name, task in results.tasks.items():  # groups before what is in them; one without a score is no row
        for part in task.parts:
            depth[part] = depth.get(name, 0) + bool(task.scores)
    return depth


def _corrected(rows: Sequence[Sequence[Verdict]]) -> list[tuple[Verdict, ...]]:
    """Corrects by Holm over all rows' tests of a family, whatever their metrics are."""
    alike = corrected([[replace(verdict, measure="") for verdict in row] for row in rows])
    return [
        tuple(replace(verdict, measure=own.measure) for verdict, own in zip(told, row, strict=True))
        for told, row in zip(alike, rows, strict=True)
    ]


class _Table:
    """What all models came to by all metrics, with what is drawn again for them.

    Args:
        found: name → results.
        rows: what is looked at.
    """

    def __init__(self, found: Mapping[str, Results], rows: Sequence[Row]) -> None:
        self._found, self._rows = found, rows
        wanted = {key for row in rows for key in (row.parts or (row.key,))}
        self._logged: dict[tuple[str, str], Logged | str] = {}
        self._measured: dict[tuple[str, str, Column], Measured] = {}
        for name, results in found.items():
            for task, column in sorted(wanted):
                if task in results.tasks and column in results.tasks[task].scores:
                    self._measured[name, task, column] = self._read(name, task, column)
        self._drawn: dict[tuple[str, str, Column], Values] = {}
        self._said: dict[tuple[str, str, str], str] = {}

    def _read(self, name: str, task: str, column: Column) -> Measured:
        of = self._found[name].tasks[task]
        if (name, task) not in self._logged:
            self._logged[name, task] = read(of) if of.file is not None else "its samples were not logged"
        logged = self._logged[name, task]
        if isinstance(logged, str):
            return Measured(score=of.scores[column], why=logged)
        return measured(of, logged, column)

    def has(self, name: str, row: Row) -> bool:
        """Whether a model has a score there."""
        task = self._found[name].tasks.get(row.task)
        return task is not None and row.column in task.scores

    def score(self, name: str, row: Row) -> float:
        """The score, as lm-eval has computed it."""
        return self._found[name].tasks[row.task].scores[row.column]

    def samples(self, name: str, row: Row) -> int:
        """How many samples it is of."""
        tasks = self._found[name].tasks
        if row.parts:
            return sum(tasks[task].samples for task, _ in row.parts if task in tasks)
        own = self._measured[name, row.task, row.column]
        return len(own.numbers) or tasks[row.task].samples

    @functools.cached_property
    def percent(self) -> frozenset[str]:
        """The labels of the rows whose samples are right or wrong in every model that has them."""
        found = set()
        for row in self._rows:
            own = [each for name in self._found if self.has(name, row) for each in self._parts(name, row)]
            if own and all(each.counted for each in own):
                found.add(row.label)
        return frozenset(found)

    def _parts(self, name: str, row: Row) -> list[Measured]:
        """What a row is made of: itself, or the parts of a group."""
        keys = row.parts or (row.key,)
        lacking = Measured(score=float("nan"), why="a task of the group was not run")
        return [self._measured.get((name, *key), lacking) for key in keys]

    def verdict(self, row: Row, reference: str, name: str) -> Verdict:
        """One model against the reference, not corrected yet."""
        found = self._compare(row, reference, name)
        counted = isinstance(found, Comparison) and found.gained is not None
        shares = not isinstance(found, Comparison) and row.label in self.percent
        told = Verdict.of(
            found,
            set=row.label,
            role=Role.TEST,
            reference=reference,
            against=reference,
            measure=ACCURACY if counted or shares else row.column[0],
            samples=self.samples(name, row) if self.has(name, row) else 0,
        )
        return replace(told, lower=row.lower, family=Family.SECONDARY if row.inside else told.family)

    def _compare(self, row: Row, reference: str, name: str) -> Comparison | str:
        """The comparison, or why there is none."""
        for model in (reference, name):
            if not self.has(model, row):
                return f"{model} was not run on it"
        keys = row.parts or (row.key,)
        for task, _ in keys:
            if said := self._apart(task, reference, name):
                return said if not row.parts else f"{task}: {said}"
        old, new = self._parts(reference, row), self._parts(name, row)
        if said := next((each.why for each in (*old, *new) if each.why), ""):
            return said
        if any(one.numbers != other.numbers for one, other in zip(old, new, strict=True)):
            return "the metric was computed for other samples"
        weights = self._weights(row, reference, old)
        if isinstance(weights, str):
            return weights
        befores, afters = _terms(old), _terms(new)
        if all(each.counted for each in (*old, *new)):
            pooled = row.parts and weights == _shares(old)
            return paired([np.concatenate(befores)], [np.concatenate(afters)]) if pooled else paired(befores, afters)
        if min(map(len, befores)) < FEW:
            return f"{min(map(len, befores))} samples say nothing about others"
        drawn = [self._draws(model, row, weights) for model in (reference, name)]
        if not np.isfinite(drawn).all():
            return "the score is not finite on samples drawn again"
        difference = self.score(name, row) - self.score(reference, row)
        return bootstrapped(difference, drawn[1] - drawn[0], sum(map(len, befores)))

    def _apart(self, task: str, reference: str, name: str) -> str:
        """Why two models cannot be compared on a task; looked at once."""
        if (task, reference, name) not in self._said:
            self._said[task, reference, name] = self._looked_apart(task, reference, name)
        return self._said[task, reference, name]

    def _looked_apart(self, task: str, reference: str, name: str) -> str:
        tasks = [self._found[model].tasks.get(task) for model in (reference, name)]
        logged = [self._logged.get((model, task)) for model in (reference, name)]
        if tasks[0] is None or tasks[1] is None:
            return "was not run on both"
        if said := next((each for each in logged if isinstance(each, str)), ""):
            return said
        if not isinstance(logged[0], Logged) or not isinstance(logged[1], Logged):
            return "was not run on both"
        return other_samples(tasks[0], tasks[1], logged[0], logged[1])

    def _weights(self, row: Row, name: str, parts: Sequence[Measured]) -> tuple[float, ...] | str:
        """The weight of each part of a group in its score: by size or all alike, whichever gives the score."""
        if not row.parts:
            return (1.0,)
        scores = np.array([each.score for each in parts])
        for weights in (_shares(parts), (1 / len(parts),) * len(parts)):
            if np.isclose(np.dot(weights, scores), self.score(name, row), rtol=1e-9, atol=1e-12):
                return weights
        return "lm-eval's score of the group is no mean of its tasks"

    def _draws(self, name: str, row: Row, weights: Sequence[float]) -> NDArray[np.float64]:
        """A model's scores on samples drawn again."""
        keys = row.parts or (row.key,)
        total: NDArray[np.float64] = np.sum(
            [weight * self._drawn_of(name, *key) for weight, key in zip(weights, keys, strict=True)], axis=0
        )
        return total

    def _drawn_of(self, name: str, task: str, column: Column) -> Values:
        """The same of one task, drawn with all models that have the same samples."""
        if (name, task, column) not in self._drawn:
            own = self._measured[name, task, column]
            alike = {
                model: each
                for model in self._found
                if (each := self._measured.get((model, task, column))) is not None
                and each.terms is not None
                and each.numbers == own.numbers
            }
            drawn = own.drawn(list(alike.values()), zlib.crc32(" ".join((task, *column)).encode()))
            self._drawn |= {(model, task, column): row for model, row in zip(alike, drawn, strict=True)}
        return self._drawn[name, task, column]

    def interval(self, name: str, row: Row) -> Interval | None:
        """The 95 % interval of a model's own score; None where there is none."""
        if not self.has(name, row):
            return None
        parts = self._parts(name, row)
        weights = None if any(each.why for each in parts) else self._weights(row, name, parts)
        if weights is None or isinstance(weights, str):
            return None
        sizes = [len(each.numbers) for each in parts]
        if all(each.counted for each in parts):
            if not row.parts or weights == _shares(parts):
                return wilson(self.score(name, row), sum(sizes))
            return mean_interval([each.score for each in parts], sizes)
        if min(sizes) < FEW:
            return None
        low, high = np.quantile(self._draws(name, row, weights), [LEVEL / 2, 1 - LEVEL / 2])
        return (float(low), float(high)) if np.isfinite([low, high]).all() else None


def _terms(parts: Sequence[Measured]) -> list[Values]:
    """The terms of each part."""
    return [each.terms for each in parts if each.terms is not None]


def _shares(parts: Sequence[Measured]) -> tuple[float, ...]:
    """The share of all samples that each part has."""
    sizes = [len(each.numbers) for each in parts]
    return tuple(size / max(sum(sizes), 1) for size in sizes)
