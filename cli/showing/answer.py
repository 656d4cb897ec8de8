"""The answer of a run or a benchmark, before its table; and its verdicts set by set, behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from merging.cli.showing.flags import in_flags
from merging.cli.showing.screen import Screen, marked
from merging.errors import showable
from merging.values.answer import Answer, Change
from merging.values.states import Wanted
from merging.values.verdict import TESTS, Standing, Verdict, counts, difference, distinct, mark, p_value, title, word

STYLES = {
    Standing.BETTER: "green",
    Standing.WORSE: "red",
    Standing.NEITHER: "default",
    Standing.NOT_TESTED: "dim",
    Standing.REFERENCE: "default",
}
"""Colour of a verdict; its mark says the same without one."""


def show_answer(console: Console, found: Answer) -> None:
    """Prints the headline, what was gained and lost, what it cost, advice, and what to do next."""
    headline = Text(showable(found.headline), style=f"bold {STYLES[found.standing]}".replace(" default", ""))
    console.print(headline, highlight=False)
    lines: list[tuple[Text, Text]] = []
    named = [told.set for change in found.changes for told in change.sets if told.figures]
    width = max((len(showable(name)) for name in named), default=0)
    for change in found.changes:
        lines += _sets(change, width)
    for use in found.uses:
        lines += _headed(Text(showable(use.name)), [Text(showable(said), style=STYLES[k]) for k, said in use.told])
    lines += [(Text("cost"), Text(showable(found.cost)))] if found.cost else []
    lines += _headed(Text("advice", style="yellow"), [Text(in_flags(line)) for line in found.advice])
    lines += _headed(Text("next", style="bold"), [Text(in_flags(line)) for line in found.next])
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for head, said in lines:
        grid.add_row(head, said)
    console.print(grid, highlight=False)


def _sets(change: Change, width: int) -> list[tuple[Text, Text]]:
    """A line for each set of a group, whose name stands once; figures stand below each other."""
    style = STYLES[change.standing]
    lines = []
    for number, told in enumerate(change.sets):
        head = Text(change.head if number == 0 else "", style=style)
        name = showable(told.set)
        said = marked(f"{{}}  [{style}]{{}}[/]", name.ljust(width), told.figures) if told.figures else Text(name)
        lines.append((head, said + marked("  [dim]{}[/]", told.remark) if told.remark else said))
    return lines


def _headed(head: Text, lines: Sequence[Text]) -> list[tuple[Text, Text]]:
    """Lines of which the first has the heading."""
    return [(head if number == 0 else Text(), line) for number, line in enumerate(lines)]


def show_verdicts(console: Console, verdicts: Iterable[Verdict]) -> None:
    """Prints every verdict, a line each, dim: difference, interval and p side by side, then what was counted."""
    found = distinct(verdicts)
    told = [verdict for verdict in found if verdict.tested]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(max_width=max(console.width // 3, 10), overflow="fold")
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column()
    for verdict in told:
        shown = Text(f"{mark(verdict) or ' '} {difference(verdict)}", style=STYLES[word(verdict)])
        grid.add_row(Text(showable(title(verdict))), shown, p_value(verdict.corrected), counts(verdict))
    if told:
        tests = " and ".join(dict.fromkeys(TESTS[verdict.test] for verdict in told if verdict.test is not None))
        console.print(marked("Against {}, by {}:", told[0].against, tests), style="dim", highlight=False)
        console.print(grid, style="dim", highlight=False)
    untested: dict[str, list[str]] = {}
    for verdict in found:
        if not verdict.tested:
            untested.setdefault(verdict.why, []).append(title(verdict))
    for why, sets in untested.items():
        console.print(marked("{}: – not tested: {}", ", ".join(sets), why), style="dim", highlight=False)


SHORT_OF_WHAT_WAS_WANTED = 3
"""Exit code where ``--fail-unless`` asks for more than tests show."""


def fail_unless(wanted: Wanted, found: Answer) -> None:
    """Ends the command where the answer is not what a pipeline wants, with the verdict as the reason.

    Raises:
        Exit: it is not; one line on standard error says why.
    """
    if said := found.shortfall(wanted):
        Screen(stderr=True).print(Text(in_flags(said)), highlight=False, soft_wrap=True)
        raise click.exceptions.Exit(SHORT_OF_WHAT_WAS_WANTED)
