"""What ``merge inspect`` shows: the models of a pool, their distances, and the components of their model."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from merging.cli.showing.grid import Column, Grid
from merging.cli.showing.screen import marked, notes
from merging.errors import showable
from merging.values.advice import FAR
from merging.values.report import scored
from merging.values.verdict import ACCURACY
from merging.values.wording import plural, some

if TYPE_CHECKING:
    from merging.looking.inspection import Inspection

MATRIX = 16
"""Pools up to this size are shown as a matrix of distances, where the screen is as wide as it."""
ELSEWHERE = "--json"
NAMED = 4
"""Groups of duplicates, and models of each, that are named."""


def show_inspection(console: Console, found: Inspection, *, tensors: bool) -> None:
    """Prints the pool, then the components (``tensors``: with what is in them), each with its legend."""
    if len(found.pool) > 1:
        for line in _answer(found):
            console.print(line, highlight=False)
        console.print()
    if found.pool:
        _show_pool(console, found)
        console.print()
    _components(found, tensors=tensors).show(console)
    total = sum(found.parameters(component) for component in found.partition.components)
    active = f", {len(found.partition.active)} active" if found.marked else ""
    console.print(
        f"{plural(len(found.partition), 'component')}{active}; {plural(len(found.tensors), 'tensor')}, "
        f"{plural(total, 'parameter', ',')}",
        highlight=False,
    )
    said = ["active: what it holds changes the output; inert: it does not"] if found.marked else []
    said += ["spread: how far the models lie apart in it, in % of its length"] if found.geometry else []
    if said:
        console.print(". ".join(said) + ".", style="dim", highlight=False)
    if not found.marked:
        console.print("Which are inert is not known: name the architecture with --model, or a --task.", style="dim")
    for group in found.ties:
        console.print(showable(f"tied: {', '.join(group)}"), highlight=False)
    notes(console, found.notes, found.pool)


def _components(found: Inspection, *, tensors: bool) -> Grid:
    names, counts, sizes, spreads, states = list[Text](), list[Text](), list[Text](), list[Text](), list[Text]()
    dim = set()
    for index, component in enumerate(found.partition.components):
        if component.inert or component.frozen or component.constant:
            dim.add(len(names))
        names.append(Text(showable(component.name)))
        counts.append(Text(str(len(component.tensors))))
        sizes.append(Text(f"{found.parameters(component):,}"))
        spreads.append(Text(f"{100 * found.geometry.spread[index]:.2f} %" if found.geometry else ""))
        states.append(Text(_state(found, index)))
        for name in component.tensors if tensors else ():
            shape, dtype = found.tensors[name]
            dim.add(len(names))
            names.append(Text(f"  {showable(name)}"))
            counts.append(Text())
            sizes.append(Text(" × ".join(map(str, shape)) or "scalar"))
            spreads.append(Text())
            states.append(Text(dtype))
    columns = [Column(head="tensors", cells=counts, rank=2), Column(head="parameters", cells=sizes)]
    if found.geometry:
        columns.append(Column(head="spread", cells=spreads))
    columns.append(Column(head="", cells=states, right=False))
    return Grid(names=names, columns=columns, corner="component", elsewhere=ELSEWHERE, dim=frozenset(dim), turns=False)


def _state(found: Inspection, index: int) -> str:
    component = found.partition.components[index]
    if component.inert or component.frozen:
        return "inert" if component.inert else "frozen"
    return "equal in all models" if component.constant else "active" if found.marked else ""


def _show_pool(console: Console, found: Inspection) -> None:
    geometry, names = found.geometry, found.pool
    points = " in points" if _in_percent(found) else ""
    columns, said = list[Column](), list[str]()
    if found.scores:
        said += [] if _in_percent(found) else [f"held-out: {found.objective}"]
        columns.append(Column(head="held-out", cells=[Text(scored(score, found.objective)) for score in found.scores]))
    best = _best(found)
    with_best = {b.second if b.first == best else b.first: b for b in found.barriers if best in (b.first, b.second)}
    if with_best:
        there = [with_best.get(name) for name in names]
        middle = [Text(scored(b.midpoint, found.objective) if b else "best") for b in there]
        columns.append(Column(head="midpoint with best", cells=middle))
        columns.append(Column(head="barrier", cells=[Text(_height(found, b.height) if b else "") for b in there]))
        said.append(
            f"barrier: how far the midpoint of a model and the best one falls below the mean of the two{points}; "
            "negative where averaging helps"
        )
    if geometry is not None:
        length = geometry.norm or 1.0
        if geometry.from_base is not None:
            away = [Text(f"{100 * value / length:.2f} %") for value in geometry.from_base]
            columns.append(Column(head="from base", cells=away, rank=2))
        others = [[geometry.distances[i, j] / length for j in range(len(names)) if j != i] for i in range(len(names))]
        near = [(min(row), max(row)) for row in others]
        columns.append(Column(head="nearest", cells=[Text(f"{100 * low:.2f} %") for low, _ in near]))
        columns.append(Column(head="farthest", cells=[Text(f"{100 * high:.2f} %") for _, high in near]))
        base = "from base, nearest, farthest" if geometry.from_base is not None else "nearest, farthest"
        said.append(f"{base}: distance in % of the weights' length")
    width = len(str(len(names) - 1))
    numbered = [marked("[dim]{}[/] {}", f"{number:>{width}}", name) for number, name in enumerate(names)]
    Grid(names=numbered, columns=columns, corner="model", elsewhere=ELSEWHERE, turns=False).show(console)
    for line in said:
        console.print(f"{line}.", style="dim", highlight=False)
    if geometry is not None:
        _show_distances(console, found)


def _answer(found: Inspection) -> list[Text]:
    """What a pool is looked at for: whether its models can be averaged, and which of them are one."""
    lines = [
        marked("[yellow]duplicates:[/] {} hold the same weights", some(group, NAMED))
        for group in found.duplicates[:NAMED]
    ]
    if (more := len(found.duplicates) - NAMED) > 0:
        lines.append(marked("[yellow]duplicates:[/] {} ({} has all)", plural(more, "more group"), ELSEWHERE))
    if not found.barriers:
        return lines or [marked("[bold]{}[/], no two with the same weights", plural(len(found.pool), "model"))]
    far = FAR if _in_percent(found) else max(found.scores) - min(found.scores)
    apart, worst = [each for each in found.barriers if each.height > far], max(found.barriers, key=lambda b: b.height)
    pairs = plural(len(found.barriers), "midpoint")
    pairs += f" with the best model ({_best(found)})" if len(found.barriers) < len(found.pool) else ""
    unit = " points" if _in_percent(found) else ""
    highest = f"{_height(found, worst.height)}{unit}, between {worst.first} and {worst.second}"
    if apart:
        count = f"{len(apart):,} of {pairs}" if len(found.barriers) > 1 else "the midpoint"
        verb = "falls" if len(apart) == 1 else "fall"
        said = f"{count} {verb} far below the two ends: averages of such models lose; highest barrier {highest}"
        lines.append(marked("[bold red]not one basin:[/] {}", said))
    elif worst.height > 0:
        said = f"no barrier is high among {pairs}; the highest is {highest}"
        lines.append(marked("[bold green]one basin:[/] {}", said))
    else:
        said = (
            f"none of {pairs} falls below the mean of its two ends"
            if len(found.barriers) > 1
            else ("the midpoint does not fall below the mean of the two ends")
        )
        lines.append(marked("[bold green]one basin:[/] {}", said))
    return lines


def _in_percent(found: Inspection) -> bool:
    """Accuracies are shown in percent, other scores as they are."""
    return found.objective == ACCURACY


def _midpoint(found: Inspection, score: float) -> str:
    return f"{100 * score:.1f}" if _in_percent(found) else f"{score:.3g}"


def _height(found: Inspection, barrier: float) -> str:
    return f"{100 * barrier:+.2f}" if _in_percent(found) else f"{barrier:+.3g}"


def _best(found: Inspection) -> str:
    return found.pool[max(range(len(found.scores)), key=lambda i: (found.scores[i], -i))] if found.scores else ""


def _show_distances(console: Console, found: Inspection) -> None:
    """All of them as a matrix where there is room, else the two ends."""
    names, geometry = found.pool, found.geometry
    if geometry is None or len(names) < 3:  # the columns say it
        return
    lines, above = _matrix(found)
    if len(names) <= MATRIX and max(map(cell_len, (line.plain for line in lines))) <= console.width:
        said = "Below the diagonal: distance in % of the weights' length" + (f"; above: {above}." if above else ".")
        console.print(f"\n{said}", style="dim", highlight=False)
        for line in lines:
            console.print(line, highlight=False, no_wrap=True, overflow="ignore", crop=False)
        return
    pairs = sorted(itertools.combinations(range(len(names)), 2), key=lambda pair: geometry.distances[pair])
    for word, (i, j) in (("nearest", pairs[0]), ("farthest", pairs[-1])):
        share = f"{100 * geometry.distances[i, j] / (geometry.norm or 1.0):.2f} %"
        said = f"{word} of {plural(len(pairs), 'pair', ',')}: {names[i]} and {names[j]}, {share} apart"
        console.print(showable(said), highlight=False)
    console.print(f"The distances of all pairs: {ELSEWHERE}.", style="dim", highlight=False)


def _matrix(found: Inspection) -> tuple[list[Text], str]:
    """Distances below the diagonal; cosines, or the midpoints of all pairs, above it, and what these are."""
    geometry, n = found.geometry, len(found.pool)
    assert geometry is not None  # noqa: S101 (for the type checker)
    midpoints = {frozenset((b.first, b.second)): b.midpoint for b in found.barriers}
    every = len(midpoints) == n * (n - 1) // 2
    cells = [[Text(str(number), style="bold") for number in range(n)]]
    for i in range(n):
        row = [Text(f"{100 * geometry.distances[i, j] / (geometry.norm or 1.0):.2f}") for j in range(i)]
        row.append(Text("·"))
        for j in range(i + 1, n):
            if every:
                row.append(Text(_midpoint(found, midpoints[frozenset((found.pool[i], found.pool[j]))])))
            else:
                cosine = "" if geometry.cosines is None else f"{geometry.cosines[i, j]:.2f}"
                row.append(Text(cosine, style="cyan"))
        cells.append(row)
    width, label = max(cell.cell_len for row in cells for cell in row), len(str(n - 1))
    lines = []
    for name, row in zip(["", *map(str, range(n))], cells, strict=True):
        line = Text(f"{name:>{label}}")
        for cell in row:
            line = line + Text(" " * (width + 1 - cell.cell_len)) + cell
        line.rstrip()
        lines.append(line)
    if every:
        return lines, f"held-out score of the midpoint{' in %' if _in_percent(found) else ''}"
    return lines, "cosine of the differences from the base" if geometry.cosines is not None else ""
