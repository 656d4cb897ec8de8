"""Which samples a number is of: columns for the results of several folders, and what each folder calls them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow, Single, accurate
from merging.plugins.task import HELD_OUT
from merging.values.verdict import Role


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples that a folder's scores are of.

    Attributes:
        role: what they are for: a test set is no held-out data, whatever is in it.
        name: what the folder calls them.
        fingerprint: the fingerprint of the data; empty where no file of the folder has it.
        task: name of the task.
        count: how many samples there are.
        parts: columns of the sets that an average is over.
    """

    role: Role
    name: str
    fingerprint: str = ""
    task: str = ""
    count: int = 0
    parts: tuple[str, ...] = ()

    def same(self, other: Samples) -> bool:
        """Whether two folders mean the same samples: by fingerprint, or where one has none by name, task and number."""
        if self.role != other.role or self.parts != other.parts:
            return False
        if self.fingerprint and other.fingerprint:
            return self.fingerprint == other.fingerprint
        return (self.name, self.task, self.count) == (other.name, other.task, other.count) or bool(self.parts)


def samples_of(found: Benchmark) -> Iterator[Samples]:
    """The sets of one folder that it has scores on; averages are not among them."""
    data: Mapping[str, Any] = found.header.get("data") or {}
    for name in (HELD_OUT, *found.held, *found.sets):
        role = Role.SHIFT if name in found.shifts else Role.TEST
        role = Role.HELD_OUT if name in (HELD_OUT, *found.held) else role
        yield Samples(
            role=role,
            name=name,
            fingerprint=str(data.get(name) or ""),
            task=found.task,
            count=found.samples.get(name, 0),
        )


@dataclass(eq=False)
class Columns:
    """The columns of a table over several folders: each of one set of samples.

    Attributes:
        known: column → its samples.
        owners: column → the folders that have scores in it.
    """

    known: dict[str, Samples] = field(default_factory=dict)
    owners: dict[str, list[str]] = field(default_factory=dict)

    def take(self, folder: str, found: Benchmark) -> dict[str, str]:
        """Finds or makes the columns of a folder.

        Args:
            folder: the folder's name.
            found: its results.

        Returns:
            What the folder calls a set, or its average → the column.
        """
        names: dict[str, str] = {}
        for one in samples_of(found):
            names[one.name] = self._column(folder, one, set(names.values()))
        if found.shifts:
            parts = tuple(sorted(names[name] for name in found.shifts if name in names))
            names[SHIFTED] = self._column(folder, Samples(role=Role.AVERAGE, name=SHIFTED, parts=parts), set())
        for name in found.averages:
            names[name] = self._column(folder, Samples(role=Role.AVERAGE, name=name, parts=(folder, name)), set())
        return names

    def _column(self, folder: str, one: Samples, taken: set[str]) -> str:
        for column, known in self.known.items():
            if column not in taken and known.same(one):
                self.owners[column].append(folder)
                if not (known.fingerprint and known.count):
                    fingerprint, count = known.fingerprint or one.fingerprint, known.count or one.count
                    self.known[column] = replace(known, fingerprint=fingerprint, count=count)
                return column
        column = one.name if one.name not in self.known else f"{one.name} [{folder}]"
        while column in self.known:
            column += "′"
        self.known[column], self.owners[column] = one, [folder]
        return column

    def of(self, *roles: Role) -> tuple[str, ...]:
        """The columns of samples with these roles."""
        return tuple(column for column, known in self.known.items() if known.role in roles)

    def told(self) -> list[str]:
        """Says which columns have one name and other samples, and whose they are; a line a name."""
        lines = []
        for name in dict.fromkeys(known.name for known in self.known.values()):
            columns = [column for column, known in self.known.items() if known.name == name]
            if len(columns) > 1:
                whose = "; ".join(f"{column}: of {', '.join(self.owners[column])}" for column in columns)
                what = "an average over other sets" if name == SHIFTED else "other samples under one name"
                lines.append(f"{what}, a column each: {whose}")
        return lines


def renamed_row(row: BenchmarkRow, names: Mapping[str, str]) -> BenchmarkRow:
    """A row with its scores in other columns.

    Args:
        row: the row.
        names: column → new column.
    """
    every = dict(names) | {accurate(name): accurate(new) for name, new in names.items()}
    return replace(
        row,
        **_scores(row, names),
        intervals={every.get(name, name): value for name, value in row.intervals.items()},
        spread={every.get(name, name): value for name, value in row.spread.items()},
        accuracies={every.get(name, name): value for name, value in row.accuracies.items()},
        verdicts=tuple(replace(verdict, set=names.get(verdict.set, verdict.set)) for verdict in row.verdicts),
    )


def renamed_single(single: Single, names: Mapping[str, str]) -> Single:
    """A model's scores in other columns. The arguments are those of :func:`renamed_row`."""
    return replace(single, **_scores(single, names))


def _scores(own: BenchmarkRow | Single, names: Mapping[str, str]) -> dict[str, Any]:
    """The scores in other columns: what is no longer the table's held-out score, or its average, is a set's."""
    tests = {names.get(name, name): value for name, value in own.tests.items()}
    found: dict[str, Any] = {"held_out": own.held_out, "shifted": own.shifted, "tests": tests}
    for part, column in (("held_out", HELD_OUT), ("shifted", SHIFTED)):
        if names.get(column, column) != column and found[part] is not None:
            tests[names[column]], found[part] = found[part], None
    return found


def comparable(one: Benchmark, other: Benchmark) -> bool:
    """Whether two folders' results have a column in common: scores of one kind, on the same samples."""
    if scale(one) != scale(other) or not (scored(one) and scored(other)):
        return False
    return any(mine.same(theirs) for mine in samples_of(one) for theirs in samples_of(other))


def scored(found: Benchmark) -> bool:
    """Whether anything was scored: a run without a task has no scores."""
    return any(row.finished for row in found.rows) or any(found.samples.values())


def scale(found: Benchmark) -> tuple[str, str]:
    """Says what the scores are: objectives of one name and with other options are two scales."""
    declared = found.header.get("objective")
    options = declared.get("options") if isinstance(declared, Mapping) else None
    return found.objective, str(sorted(options.items())) if options else ""


def apart(found: Benchmark, above: Sequence[Benchmark]) -> str:
    """Says in a line why results stand in a table of their own.

    Args:
        found: the results.
        above: the tables above theirs, the first of which has others.
    """
    if not scored(found):
        return "merged without a task: there are no scores to compare"
    alike = [other for other in above if scored(other) and scale(other) == scale(found)]
    if not alike:
        others = ", ".join(dict.fromkeys(other.objective for other in above if scored(other)))
        return f"another objective, {found.objective}: its scores are no {others}" if others else ""
    task = f"task {found.task}" if found.task not in {other.task for other in alike} else f"other data of {found.task}"
    return f"{task}: no set in common with the tables above"
