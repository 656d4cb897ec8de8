"""The leaderboard of a pool as a table: the columns and rows that terminal, card, Markdown and page show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from merging.errors import showable
from merging.values.leaderboard import Single, ranked, short
from merging.values.markdown import plain
from merging.values.report import HELD_OUT, Report, number
from merging.values.verdict import ACCURACY, Role

ALL = 20
"""A pool of so many models, or fewer, is shown whole."""
TOP = 10
"""Models that are shown of a larger one, besides those in a soup which leaves models out."""


class Kind(Enum):
    """The kind of a column, by which a narrow table chooses what it shows."""

    MAIN = auto()
    """Held-out data, plain test sets, the average of the shifted ones."""
    SHIFT = auto()
    """A single shifted set."""
    SOUPS = auto()
    TRAINED = auto()
    """One hyper-parameter, model by model."""


@dataclass(frozen=True)
class Column:
    """One column: what it is, its heading, and a cell for each model that is shown."""

    kind: Kind
    heading: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """A pool's models, best first, and how tables call the methods that mix them.

    Attributes:
        singles: the models, best first.
        labels: method → what tables call it, of the rows beside the best single model.
        tests: the test sets, in order.
        shifts: the shifted ones among them.
        percent: whether the scores are accuracies.
        measure: what they are.
        most: a pool of so many models, or fewer, is shown whole.
    """

    singles: tuple[Single, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    tests: tuple[str, ...] = ()
    shifts: tuple[str, ...] = ()
    percent: bool = True
    measure: str = ""
    most: int = ALL

    @classmethod
    def of(cls, report: Report) -> Leaderboard:
        """The pool of a run; without models where nobody has scored one, or there is one alone."""
        known = [single for single in report.leaderboard if single.held_out is not None]
        return cls(
            singles=ranked(report.leaderboard) if len(report.leaderboard) > 1 and known else (),
            labels={row.strategy: row.label for row in report.rows if row.strategy != "best"},
            tests=tuple(dict.fromkeys(name for single in known for name in single.tests)),
            shifts=report.shifts,
            percent=report.measure == ACCURACY,
            measure=report.measure,
        )

    @property
    def whole(self) -> tuple[str, ...]:
        """The methods whose merge has all models in it, which tell none apart."""
        return tuple(name for name in self.labels if all(name in single.soups for single in self.singles))

    @property
    def mixed(self) -> tuple[str, ...]:
        """The other methods that mix some of the models."""
        used = {name for single in self.singles for name in single.soups}
        return tuple(name for name in self.labels if name in used and name not in self.whole)

    @property
    def shown(self) -> tuple[tuple[int, Single], ...]:
        """The models that a table shows, each with its rank."""
        numbered = tuple(enumerate(self.singles, 1))
        if len(numbered) <= self.most:
            return numbered
        first, rest = numbered[:TOP], numbered[TOP:]
        return first + tuple(each for each in rest if set(each[1].soups) & set(self.mixed))[: self.most - TOP]

    @property
    def left_out(self) -> int:
        """Number of the models that a table does not show."""
        return len(self.singles) - len(self.shown)

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, as the first column shows them: with the rank where some are left out."""
        return tuple(f"{rank}. {single.name}" if self.left_out else single.name for rank, single in self.shown)

    def columns(self, soups: Mapping[str, str] | None = None) -> tuple[Column, ...]:
        """The columns beside the names; those without a score, a soup or a value are left out.

        Args:
            soups: method → what the column of soups says for it; default: what tables call it.
        """
        rows, found = [single for _, single in self.shown], list[Column]()
        average = str(Role.AVERAGE)
        scores = [(Kind.MAIN, HELD_OUT, [row.held_out for row in rows])]
        scores += [(self._kind(name), name, [row.tests.get(name) for row in rows]) for name in self.tests]
        scores += [(Kind.MAIN, average, [row.shifted for row in rows])] if len(self.shifts) > 1 else []
        scores.sort(key=lambda each: each[0] is Kind.SHIFT)  # stable: single shifted sets last
        for kind, name, values in scores:
            if any(value is not None for value in values):
                cells = tuple(number(value, percent=self.percent, measure=self.measure) for value in values)
                found.append(Column(kind, average if name == average else showable(name), cells))
        if self.mixed:
            says = soups if soups is not None else self.labels
            join = "" if soups is not None else ", "
            told = tuple(join.join(says[name] for name in row.soups if name in self.mixed) for row in rows)
            found.append(Column(Kind.SOUPS, "in soups", tuple(map(showable, told))))
        for name in dict.fromkeys(name for row in self.singles for name in row.trained):
            cells = tuple(showable(short(row.trained.get(name))) for row in rows)
            found.append(Column(Kind.TRAINED, showable(name), cells))
        return tuple(found)

    def _kind(self, name: str) -> Kind:
        return Kind.SHIFT if name in self.shifts and len(self.shifts) > 1 else Kind.MAIN

    def remarks(self, file: str) -> list[str]:
        """Says which methods have all models in them, and how many models are not shown.

        Args:
            file: the file that has all of them.
        """
        said = []
        if self.whole:
            said.append(f"All models are in: {', '.join(self.labels[name] for name in self.whole)}.")
        if self.left_out:
            said.append(f"… {self.left_out} more in {file}.")
        return said


def in_markdown(board: Leaderboard, file: str) -> str:
    """The table in Markdown, with what is said below it; empty without models.

    Args:
        board: the models.
        file: the file that has all of them.
    """
    if not board.singles:
        return ""
    columns = board.columns()
    heads = [plain(text) for text in ("model", *(column.heading for column in columns))]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row, name in enumerate(board.names):
        lines.append(f"| {' | '.join(plain(text) for text in (name, *(c.cells[row] for c in columns)))} |")
    return "\n\n".join(["\n".join(lines), *([plain(" ".join(said))] if (said := board.remarks(file)) else [])])


def initials(labels: Mapping[str, str]) -> dict[str, str]:
    """A letter for each method: the first of its label that no earlier one has, else any that is free.

    >>> initials({"greedy": "greedy soup", "fisher": "fisher", "greedy-ensemble": "greedy-ensemble"})
    {'greedy': 'g', 'fisher': 'f', 'greedy-ensemble': 'r'}
    """
    taken: dict[str, str] = {}
    for name, label in labels.items():
        wanted = [letter for letter in label.lower() if letter.isascii() and letter.isalpha()]
        spare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        taken[name] = next((letter for letter in (*wanted, *spare) if letter not in taken.values()), "+")
    return taken
