"""Tables that fit the screen: one layout or another, never a table in two parts and never half a number.

A caller says what there is (:class:`Grid`: names, and a :class:`Column` of texts for each thing that is told of them);
the screen's width decides how it is laid out:

1. whole, a line a row;
2. transposed, a line a column, where there are fewer rows than columns;
3. with the short form of what has one, and then transposed;
4. without columns of a rank above 1, the highest first; which ones, and where they are, is said below;
5. with less space between columns;
6. without the columns of rank 1;
7. stacked: a heading for each column, and below it a line for each row.

Where names leave too little room for the rest, those of several words take several lines; then they are folded in the
middle, so that they still differ. Headings are broken at spaces and hyphens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from merging.cli.showing.folding import folded, wrapped
from merging.errors import showable
from merging.values.wording import some

LABEL, LEAST = 16, 12
"""Cells that a row's name keeps beside its numbers, where it has so many; and where columns stand close."""
WORD = 12
"""Cells of a heading's word that are not folded, however narrow the column below is."""
TALL = 3
"""Lines that a name of several words may take before it is folded."""
MOST = 12
"""Columns without room that are named; the others are counted."""
GAP = 2
"""Cells between columns; where they stand close, one less."""
HYPHENS = "-_/"
"""After these a word of a heading may be broken."""
_HYPHEN = re.compile(rf"[^{HYPHENS}]*[{HYPHENS}]+|[^{HYPHENS}]+")
_NUMBER = re.compile(r"[-+]?[\d,]*(?:\.\d+)?")
"""What a cell begins with; nothing, where that is a word."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table, whatever the screen.

    Attributes:
        head: heading; it may take several lines, a word a line.
        cells: a text for each row, of one line.
        short: the same in fewer cells, for narrow screens; empty: the cells.
        rank: 0: it stays whatever happens; others leave where there is no room, the highest rank first.
        right: numbers stand at the right, words at the left.
    """

    head: str
    cells: Sequence[Text]
    short: Sequence[Text] = ()
    rank: int = 0
    right: bool = True

    @property
    def width(self) -> int:
        """Cells of its widest text."""
        return max((cell.cell_len for cell in self.cells), default=0)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table, as far as it does not depend on the screen.

    Attributes:
        names: what each row is called; a style of the whole text stays where it is folded.
        columns: what is told of them.
        corner: heading above the names.
        elsewhere: file or flag that has the columns without room, such as "benchmark.md".
        dim: numbers of the rows that matter less.
        turns: it may be transposed.
    """

    names: Sequence[Text]
    columns: Sequence[Column]
    corner: str = ""
    elsewhere: str = ""
    dim: frozenset[int] = field(default_factory=frozenset)
    turns: bool = True

    def show(self, console: Console) -> None:
        """Prints the first layout that fits the screen."""
        for line in self.lines(console.width):
            console.print(line, highlight=False, no_wrap=True, overflow="ignore", crop=False)

    def lines(self, width: int) -> list[Text]:
        """Lays the table out on a screen of so many cells."""
        form = self._form(width)
        if form is None:
            kept = self._up_to(1)
            return [*self._stacked([self.columns[k] for k in kept], width), *self._left_out(kept, width)]
        return [*(self._in(form)._laid(width, form) or []), *self._left_out(form.kept, width)]

    def without(self, width: int) -> tuple[str, ...]:
        """Headings of the columns for which a screen of so many cells has no room."""
        form = self._form(width)
        kept = self._up_to(1) if form is None else form.kept
        return tuple(column.head for k, column in enumerate(self.columns) if k not in kept)

    def _form(self, width: int) -> _Form | None:
        """The first form that fits, and as many columns as it takes; None where none does."""
        for form in self._forms():
            if self._in(form)._laid(width, form) is not None:
                return self._filled(form, width)
        return None

    def _forms(self) -> Iterator[_Form]:
        """Forms that need ever less room."""
        every = kept = self._up_to(max((column.rank for column in self.columns), default=0))
        turns = self.turns and len(every) > len(self.names)
        for short in (False, True):
            yield _Form(every, short=short)
            if turns:
                yield _Form(every, turned=True, short=short)
        for rank in sorted({column.rank for column in self.columns if column.rank > 1}, reverse=True):
            kept = self._up_to(rank - 1)
            yield _Form(kept, short=True)
        yield _Form(kept, short=True, close=True)
        if turns:
            yield _Form(every, turned=True, short=True, close=True)
        if 0 < len(kept := self._up_to(0)) < len(self._up_to(1)):
            yield _Form(kept)
            yield _Form(kept, short=True)
            yield _Form(kept, short=True, close=True)

    def _up_to(self, rank: int) -> tuple[int, ...]:
        return tuple(k for k, column in enumerate(self.columns) if column.rank <= rank)

    def _in(self, form: _Form) -> Grid:
        """Itself in a form."""
        columns = [self.columns[k] for k in form.kept]
        if form.short:
            columns = [replace(column, cells=column.short or column.cells) for column in columns]
        if not form.turned:
            return replace(self, columns=columns)
        cells = zip(*(column.cells for column in columns), strict=True)
        return replace(
            self,
            names=[Text(showable(column.head)) for column in columns],
            columns=[Column(head=name.plain, cells=at_point(row)) for name, row in zip(self.names, cells, strict=True)],
            dim=frozenset(),
        )

    def _filled(self, form: _Form, width: int) -> _Form:
        """The form with the first of the columns of rank 2 and more that find room after all."""
        for k in sorted(range(len(self.columns)), key=lambda k: self.columns[k].rank):
            if self.columns[k].rank > 1 and k not in form.kept:
                fuller = replace(form, kept=tuple(sorted((*form.kept, k))))
                if self._in(fuller)._laid(width, fuller) is None:
                    break
                form = fuller
        return form

    def _laid(self, width: int, form: _Form) -> list[Text] | None:
        """A line a row, more where its name takes several; or None where they are wider than the screen."""
        gap, heads = form.gap, self._heads(0 if form.short else WORD)
        widths = [max([column.width, *map(cell_len, head)]) for column, head in zip(self.columns, heads, strict=True)]
        longest = max([cell_len(showable(self.corner)), *(name.cell_len for name in self.names)])
        room = width - sum(gap + each for each in widths)
        if room < min(longest, LABEL if gap == GAP else LEAST):
            return None
        names = self._several(min(longest, room))
        label = max([cell_len(showable(self.corner)), *(line.cell_len for name in names for line in name)])
        label = min(label, room)
        sides = [column.right for column in self.columns]
        tall = max(map(len, heads), default=0)
        above = [[*[""] * (tall - len(head)), *head] for head in heads]
        lines = [
            _line(Text(folded([showable(self.corner)], label)[0] if last else ""), label, row, widths, sides, gap)
            for last, row in ((n == tall - 1, [Text(head[n]) for head in above]) for n in range(tall))
        ]
        for line in lines:
            line.stylize("bold")
        for number, (first, *more) in enumerate(names):
            line = _line(first, label, [column.cells[number] for column in self.columns], widths, sides, gap)
            for each in (line, *more):
                if number in self.dim:
                    each.stylize("dim")
                lines.append(each)
        return lines

    def _heads(self, least: int) -> list[list[str]]:
        """Lines of each column's heading: as wide as the column, its longest part, or the least number of cells."""
        words = [_words(showable(column.head), max(WORD, column.width)) for column in self.columns]
        flat = [part for head in words for word in head for part in word]
        short = dict(zip(flat, folded(flat, WORD), strict=True))
        heads = []
        for column, head in zip(self.columns, words, strict=True):
            own = [[part if cell_len(part) <= column.width else short[part] for part in word] for word in head]
            heads.append(_together(own, max([least, column.width, *(cell_len(part) for word in own for part in word)])))
        return heads

    def _several(self, room: int) -> list[list[Text]]:
        """The names in so many cells: in several lines between their words, or folded in one."""
        if all(name.cell_len <= room for name in self.names):
            return [[name] for name in self.names]
        broken = [[name] if name.cell_len <= room else _indented(name, room) for name in self.names]
        if all(len(each) <= TALL and all(line.cell_len <= room for line in each) for each in broken):
            return broken
        return [[name] for name in self._folded(room)]

    def _stacked(self, kept: Sequence[Column], width: int) -> list[Text]:
        """A heading for each column, and below it a line for each row."""
        lines = []
        for column in kept:
            if column.head:
                lines.append(Text(folded([showable(column.head)], max(width, 4))[0], style="bold"))
            cells = column.short or column.cells
            wide = max((cell.cell_len for cell in cells), default=0)
            room = width - wide - 2 * GAP
            apart = room < min(LEAST, max((name.cell_len for name in self.names), default=0))
            names = self._several(max(width - GAP if apart else room, 4))
            label = max((line.cell_len for name in names for line in name), default=0)
            for number, (name, cell) in enumerate(zip(names, cells, strict=True)):
                if apart:  # a number is never cut: it stands below its name
                    row = [*name, Text(" " * GAP) + cell]
                else:
                    row = [_line(name[0], label, [cell], [wide], [column.right], GAP), *name[1:]]
                for line in (Text(" " * GAP) + line for line in row):
                    if number in self.dim:
                        line.stylize("dim")
                    lines.append(line)
        return lines

    def _folded(self, room: int) -> list[Text]:
        """The names in so many cells; those that are whole keep their styles."""
        short = folded([name.plain for name in self.names], max(room, 4))
        return [
            name if name.plain == text else Text(text, style=name.style)
            for name, text in zip(self.names, short, strict=True)
        ]

    def _left_out(self, kept: Sequence[int], width: int) -> list[Text]:
        """Says which columns found no room."""
        gone = [showable(column.head) for k, column in enumerate(self.columns) if column.head and k not in kept]
        if not gone:
            return []
        where = f"; see {self.elsewhere}" if self.elsewhere else ""
        return wrapped(Text(f"(no room: {some(gone, MOST)}{where})", style="dim"), width)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """A way to lay a table out: which of its columns, transposed or not, whole or short cells."""

    kept: tuple[int, ...] = field(kw_only=False)
    turned: bool = False
    short: bool = False
    close: bool = False

    @property
    def gap(self) -> int:
        """Cells between its columns."""
        return GAP - 1 if self.close else GAP


def _words(head: str, room: int) -> list[list[str]]:
    """Words of a heading, each in its parts: one, or where it has more than so many cells one for each hyphen."""
    return [_HYPHEN.findall(word) if cell_len(word) > room else [word] for word in head.split()]


def _together(words: Sequence[Sequence[str]], width: int) -> list[str]:
    """Puts the parts of a heading's words into as few lines of so many cells as they need."""
    lines = list[str]()
    for gap, part in ((" " if number == 0 else "", part) for word in words for number, part in enumerate(word)):
        if lines and cell_len(lines[-1] + gap + part) <= width:
            lines[-1] += gap + part
        else:
            lines.append(part)
    return lines


def _indented(name: Text, room: int) -> list[Text]:
    """A name in several lines, all but the first a little to the right."""
    first, *more = wrapped(name, room - GAP)
    return [first, *(Text(" " * GAP) + line for line in more)]


def at_point(cells: Sequence[Text]) -> list[Text]:
    """Numbers of several kinds below one another: their points in one place, and what follows them at the right."""
    before = [len(_NUMBER.match(cell.plain)[0].partition(".")[0]) for cell in cells]  # type: ignore[index]
    after = [cell.cell_len - size for cell, size in zip(cells, before, strict=True)]
    return [
        Text(" " * (max(before) - size)) + cell + Text(" " * (max(after) - rest))
        for cell, size, rest in zip(cells, before, after, strict=True)
    ]


def _line(
    name: Text, label: int, cells: Sequence[Text], widths: Sequence[int], sides: Sequence[bool], gap: int
) -> Text:
    """A name and its cells, each in its place."""
    line = name.copy()
    line.append(" " * (label - name.cell_len))
    for cell, width, right in zip(cells, widths, sides, strict=True):
        space = " " * (width - cell.cell_len)
        line.append(" " * gap)
        line = line + (Text(space) + cell if right else cell + Text(space))
    line.rstrip()
    return line
