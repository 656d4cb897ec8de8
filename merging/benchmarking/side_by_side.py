"""The results of several folders, side by side: what has a column in common in one table, the rest in tables apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from merging.benchmarking.columns import Columns, apart, comparable, renamed_row, renamed_single, scored
from merging.benchmarking.results import Benchmark, BenchmarkRow, Single, placed_in
from merging.plugins.task import HELD_OUT
from merging.values.report import best_single
from merging.values.states import RunState
from merging.values.verdict import Role, Verdict, corrected

CLOSE = 0.01
"""Scores of one model that differ by less are of the same data, in another precision."""


def combine(found: Mapping[str, Benchmark], left_out: Mapping[str, str] | None = None) -> Benchmark:
    """Several folders' results as one: those that have a column in common in one table, the others ``apart``.

    In a table rows stand one below the other, a model once, told apart by their folders. Of a model that several
    folders have, the tested verdicts are kept; then one correction goes over the whole table. Methods of one folder
    stay rows of their own, also where they gave the same model. A column has the scores on one set of samples: where
    two folders call other samples by one name, each has its own.

    Args:
        found: folder's name → what it holds; at least one.
        left_out: folder → why nothing of it is here.
    """
    parts = dict[str, Benchmark]()
    for name, part in found.items():
        parts |= {name: part} if not part.apart else _taken_apart(name, part)
    if len(parts) == 1:
        return replace(next(iter(parts.values())), left_out=dict(left_out or {}))
    tables: list[Benchmark] = []
    for group in _groups(parts):
        table = _table(group)
        tables.append(replace(table, why=apart(table, tables)) if tables else table)
    return replace(tables[0], apart=tuple(tables[1:]), left_out=dict(left_out or {}))


def _taken_apart(name: str, part: Benchmark) -> dict[str, Benchmark]:
    """The tables of an earlier comparison, each by itself."""
    tables = [replace(part, apart=(), left_out={}), *part.apart]
    return {name if number == 1 else f"{name} ({number})": table for number, table in enumerate(tables, 1)}


def _groups(parts: Mapping[str, Benchmark]) -> list[dict[str, Benchmark]]:
    """The folders that stand in one table: those that have a column in common, or one with a third in common.

    Those without any score stand together, last.
    """
    groups: list[dict[str, Benchmark]] = []
    for name, part in parts.items():
        if scored(part):
            near = [group for group in groups if any(comparable(part, other) for other in group.values())]
            groups = [group for group in groups if group not in near]
            joined = {key: other for group in near for key, other in group.items()}
            groups.append({key: part if key == name else joined[key] for key in parts if key == name or key in joined})
    order = list(parts)
    groups.sort(key=lambda group: order.index(next(iter(group))))
    silent = {name: part for name, part in parts.items() if not scored(part)}
    return [*groups, silent] if silent else groups


def _table(found: Mapping[str, Benchmark]) -> Benchmark:
    """The results of folders that have columns in common, in one table."""
    columns, models = Columns(), Models()
    parts: dict[str, Benchmark] = {}
    for name, part in found.items():
        names = columns.take(name, part)
        singles = tuple(renamed_single(single, names) for single in part.singles)
        rows = tuple(renamed_row(row, names) for row in part.rows)
        called = models.take(name, replace(part, singles=singles))
        parts[name] = _with_models(replace(part, singles=singles, rows=rows), called)
    first = next(iter(parts.values()))
    if len(parts) == 1:
        return replace(first, folders=tuple(parts), left_out={})
    rows_of_all, twice = _rows(parts)
    told = corrected([row.verdicts for row in rows_of_all])
    named = tuple(replace(row, verdicts=verdicts) for row, verdicts in zip(rows_of_all, told, strict=True))
    samples = {name: known.count for name, known in columns.known.items() if known.role != Role.AVERAGE}
    held = tuple(name for name in columns.of(Role.HELD_OUT) if name != HELD_OUT)
    averages = columns.of(Role.AVERAGE)
    return replace(
        first,
        task=", ".join(dict.fromkeys(part.task for part in parts.values() if part.task)),
        rows=named,
        singles=placed_in(_singles(parts), named),
        samples=samples,
        shifts=columns.of(Role.SHIFT),
        held=held,
        averages=averages[1:],
        pool=tuple(dict.fromkeys(name for part in parts.values() for name in part.pool)),
        seeds=tuple(dict.fromkeys(seed for part in parts.values() for seed in part.seeds)),
        state=RunState.FINISHED,
        doubt=next((part.doubt for part in parts.values() if part.doubt), ""),
        limit=None,
        evaluations=sum(part.evaluations for part in parts.values()),
        wall_seconds=sum(part.wall_seconds for part in parts.values()),
        workers=tuple(dict.fromkeys(worker for part in parts.values() for worker in part.workers)),
        notes=(
            *columns.told(),
            *_differences(parts),
            *models.told(),
            *_unfinished(parts),
            *_brief(parts),
            *_once(twice),
            *dict.fromkeys(note for part in parts.values() for note in part.notes),
        ),
        command="",
        header={name: dict(part.header) for name, part in parts.items()},
        run="",
        folders=tuple(parts),
        left_out={},
    )


def _rows(parts: Mapping[str, Benchmark]) -> tuple[list[BenchmarkRow], list[str]]:
    """The rows of all folders, a model once, with labels that tell them apart; and those that were there already."""
    rows: list[tuple[str, BenchmarkRow]] = []
    twice: list[str] = []
    for name, part in parts.items():
        earlier = len(rows)
        for row in part.rows:
            row = row if row.folders else replace(row, folders=(name,))
            index = next((i for i, (_, other) in enumerate(rows[:earlier]) if _same(other, row)), None)
            if index is None:
                rows.append((name, row))
            else:
                twice.append(f"{row.label} [{name}]")
                rows[index] = (rows[index][0], _joined(rows[index][1], row))
    often = Counter(row.label for _, row in rows)
    return [replace(row, label=f"{row.label} [{name}]") if often[row.label] > 1 else row for name, row in rows], twice


def _once(twice: Sequence[str]) -> Sequence[str]:
    return [f"in a row above, as the same model: {', '.join(twice)}"] if twice else []


def _unfinished(parts: Mapping[str, Benchmark]) -> Sequence[str]:
    """Says whose rows are of a run, or a benchmark, that did not come to its end."""
    return [
        f"{name}: {part.status}; its rows are of the best so far"
        for name, part in parts.items()
        if part.state is not RunState.FINISHED
    ]


def _brief(parts: Mapping[str, Benchmark]) -> Sequence[str]:
    """Says whose searches were in another precision than the tables; a single folder's picture says it itself."""
    dtypes = {name: part.header.get("numerics") for name, part in parts.items() if any(row.trace for row in part.rows)}
    named = [name for name, told in dtypes.items() if isinstance(told, Mapping) and told.get("dtype") == "bfloat16"]
    return [f"searched in bf16, where the tables are in fp32: {', '.join(named)}"] if named else []


def _close(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= CLOSE * max(abs(one), 1)


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
        mine, theirs = ({**row.tests, HELD_OUT: row.held_out} for row in (one, other))
        both = [name for name in mine if theirs.get(name) is not None and mine[name] is not None]
        return one.digest == other.digest and bool(both) and all(_close(mine[name], theirs[name]) for name in both)
    for own, others in ((one.options, other.options), (one.partitioner, other.partitioner)):
        if own and others and own != others:
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
        held_out=second.held_out if first.held_out is None else first.held_out,
        tests={**second.tests, **first.tests},
        shifted=second.shifted if first.shifted is None else first.shifted,
        intervals={**second.intervals, **first.intervals},
        accuracies={**second.accuracies, **first.accuracies},
        verdicts=(*own, *verdicts.values()),
        coefficients=first.coefficients or second.coefficients,
        trace=first.trace or second.trace,
        options=first.options or second.options,
        folders=tuple(dict.fromkeys((*one.folders, *other.folders))),
    )


def _key(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.reference, verdict.against, verdict.set, verdict.measure


@dataclass(eq=False)
class Models:
    """The models of several pools, each under one name: two models that folders call alike are told apart.

    Attributes:
        known: name → its content hash, empty where no file says it, and its scores.
        apart: new name → the folder's own.
    """

    known: dict[str, tuple[str, Single | None]] = field(default_factory=dict)
    apart: dict[str, str] = field(default_factory=dict)

    def take(self, folder: str, part: Benchmark) -> dict[str, str]:
        """Gives the names of a folder's models in the table, where they are others than its own.

        Args:
            folder: the folder's name.
            part: its results, the scores in the columns of the table.
        """
        hashes, singles = part.header.get("inputs") or {}, {single.name: single for single in part.singles}
        called: dict[str, str] = {}
        for name in part.pool:
            own = str(hashes.get(name) or ""), singles.get(name)
            if name in self.known and not _one_model(self.known[name], own):
                called[name] = f"{name} [{folder}]"
                self.apart[called[name]] = name
            self.known.setdefault(called.get(name, name), own)
        return called

    def told(self) -> list[str]:
        """Says that models of one name are several."""
        if not self.apart:
            return []
        count = len(set(self.apart.values()))
        return [f"{count} names stand for other models in other folders; [folder] tells these models apart"]


def _one_model(one: tuple[str, Single | None], other: tuple[str, Single | None]) -> bool:
    """Whether two folders mean the same model by a name: by hash, or where one has none by its scores in both."""
    if one[0] and other[0]:
        return one[0] == other[0]
    mine, theirs = one[1], other[1]
    if mine is None or theirs is None:
        return True
    scores = [{**single.tests, HELD_OUT: single.held_out} for single in (mine, theirs)]
    both = [name for name, value in scores[0].items() if value is not None and scores[1].get(name) is not None]
    return all(_close(scores[0][name], scores[1][name]) for name in both)


def _with_models(part: Benchmark, called: Mapping[str, str]) -> Benchmark:
    """The same results, models called as the table calls them."""
    if not called:
        return part
    return replace(
        part,
        pool=tuple(called.get(name, name) for name in part.pool),
        singles=tuple(replace(single, name=called.get(single.name, single.name)) for single in part.singles),
        rows=tuple(_row_with_models(row, called) for row in part.rows),
    )


def _row_with_models(row: BenchmarkRow, called: Mapping[str, str]) -> BenchmarkRow:
    drawn = row.coefficients
    if drawn is not None:
        drawn = replace(drawn, ingredients=tuple(called.get(name, name) for name in drawn.ingredients))
    single = {best_single(name): best_single(new) for name, new in called.items()}
    verdicts = tuple(replace(verdict, against=single.get(verdict.against, verdict.against)) for verdict in row.verdicts)
    names = tuple(called.get(name, name) for name in row.ingredients)
    return replace(row, ingredients=names, coefficients=drawn, verdicts=verdicts)


def _singles(parts: Mapping[str, Benchmark]) -> list[Single]:
    """The models of all pools, each once, with the scores of all folders."""
    found: dict[str, Single] = {}
    for part in parts.values():
        for single in part.singles:
            known = found.get(single.name)
            if known is None:
                found[single.name] = single
                continue
            found[single.name] = replace(
                known,
                held_out=single.held_out if known.held_out is None else known.held_out,
                tests={**single.tests, **known.tests},
                shifted=single.shifted if known.shifted is None else known.shifted,
                trained=known.trained or single.trained,
            )
    return list(found.values())


def _differences(found: Mapping[str, Benchmark]) -> Sequence[str]:
    """What makes the folders' numbers hard to compare."""
    notes = []
    facts: dict[str, dict[str, str]] = {
        "task": {name: part.task for name, part in found.items()},
        "pool": {name: f"{len(part.pool)} models" for name, part in found.items()},
    }
    pools = {part.pool for part in found.values()}
    for what, values in facts.items():
        if len(set(values.values())) > 1 or (what == "pool" and len(pools) > 1):
            said = ", ".join(f"{value} ({name})" for name, value in values.items())
            notes.append(f"the folders differ in {what}: {said}; compare their rows with care")
    return notes
