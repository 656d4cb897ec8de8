"""The tables of a page: what their cells say, and the values by which its script sorts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merging.benchmarking.folder import POOL
from merging.benchmarking.rendering.leaderboard import board
from merging.benchmarking.rendering.tables import (
    COSTS,
    Cell,
    cells,
    compared,
    correction_of,
    cost,
    heading,
    shown,
)
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow, accurate
from merging.drawing import Look, look
from merging.values.leaderboard_table import ALL, Kind
from merging.values.outcome import is_score
from merging.values.told import KINDS
from merging.values.verdict import MARKS, Role, Standing, Verdict, difference, mark, p_value, word

MODELS = 400
"""Models of a pool that a page shows at the most; a file beside it has all of them."""


def scores(found: Benchmark, *, marked: bool = False) -> dict[str, Any]:
    """The table of scores.

    Args:
        found: the benchmark.
        marked: True for a page, whose script sorts and hides: rows have the marks of the pictures, cells have
            values, and the average stands second on a phone.
    """
    columns, looks = shown(found), looks_of(found) if marked else {}
    rows = [
        _named(row, looks)
        | {
            "finished": row.finished,
            "status": row.status,
            "why": row.why,
            "cells": [_score(row, column, told[column], marked=marked) for column in columns],
            "costs": [{"text": cost(row, name), "value": _number(getattr(row, name), marked)} for name in COSTS],
        }
        for row, told in zip(found.rows, cells(found), strict=True)
    ]
    return _heads(found, columns, marked=marked) | {"id": "scores", "costs": list(COSTS.values()), "rows": rows}


def comparisons(found: Benchmark, *, marked: bool = False) -> list[dict[str, Any]]:
    """The tables of differences, one for each reference."""
    tables, looks = [], looks_of(found) if marked else {}
    named = {row.label: row for row in found.rows}
    for reference in found.references:
        columns, told = compared(found, reference)
        tested = {label for label, verdicts in told.items() if any(each and each.tested for each in verdicts)}
        silent = [label for label in told if tested and label not in tested]
        rows = [
            _named(named[label], looks) | {"tests": [_test(verdict, marked=marked) for verdict in verdicts]}
            for label, verdicts in told.items()
            if label not in silent
        ]
        remark = correction_of(found, reference) + (f" Not tested: {', '.join(silent)}." if silent else "")
        own = {"name": found.against(reference), "rows": rows, "correction": remark.strip()}
        tables.append(_heads(found, columns, marked=marked) | own)
    return tables


def pool(found: Benchmark) -> dict[str, Any] | None:
    """The table of the pool's models, all of them unless there are very many; None where they were not scored."""
    models = board(found, most=MODELS)
    if not models.singles:
        return None
    columns, looks = models.columns(), looks_of(found)
    heads = [{"name": column.heading, "average": column.heading == str(Role.AVERAGE)} for column in columns]
    words = [column.kind is Kind.SOUPS or not any(map(_value, column.cells)) for column in columns]
    rows = []
    for place, (name, (_, single)) in enumerate(zip(models.names, models.shown, strict=True)):
        mixed = [soup for soup in single.soups if soup in models.mixed]
        soups = [{"label": models.labels[soup], "look": looks[models.labels[soup]]} for soup in mixed]
        texts = [(column.kind, column.cells[place]) for column in columns]
        cells = [
            {"text": text, "value": _value(text), "words": left, "soups": soups if kind is Kind.SOUPS else None}
            for (kind, text), left in zip(texts, words, strict=True)
        ]
        rows.append({"name": name, "cells": cells})
    return {
        "id": "pool",
        "heads": heads,
        "average": _average(heads),
        "rows": rows,
        "long": len(rows) > ALL,
        "remarks": " ".join(models.remarks(POOL)),
    }


def looks_of(found: Benchmark) -> dict[str, Look]:
    """Colour and shape of each row, by its label: those of the pictures."""
    return {row.label: look(position) for position, row in enumerate(found.rows)}


def _named(row: BenchmarkRow, looks: Mapping[str, Look]) -> dict[str, Any]:
    """A row's name; where it has a look, also the label by which it is found and sorted."""
    look = looks.get(row.label)
    label = row.label if look is not None else None
    folder = "" if look is None or row.label.endswith(f"[{'/'.join(row.folders)}]") else ", ".join(row.folders)
    return {"label": label, "name": row.named, "look": look if row.finished else None, "folder": folder}


def _heads(found: Benchmark, columns: Sequence[str], *, marked: bool) -> dict[str, Any]:
    """Headings, and which of them stands second on a phone."""
    averages = (SHIFTED, accurate(SHIFTED))
    heads = [{"name": heading(found, name), "average": marked and name in averages[:1]} for name in columns]
    return {"heads": heads, "average": _average(heads), "marked": marked}


def _average(heads: Sequence[dict[str, Any]]) -> int | None:
    return next((place for place, head in enumerate(heads) if head["average"]), None)


def _score(row: BenchmarkRow, column: str, cell: Cell, *, marked: bool) -> dict[str, Any]:
    kept = {name: getattr(cell, name) for name in ("text", "rank", "mark", "word", "interval", "half", "spread")}
    return kept | {"value": _number(row.value(column), marked), "kind": KINDS.get(cell.word, "none")}


def _number(value: float | None, marked: bool) -> str | None:
    """A number as a page's script reads it; None where there is none, which is sorted last."""
    return None if not marked or value is None or not is_score(value) else f"{value:.10g}"


def _value(text: str) -> str | None:
    """The value of a cell by which it is sorted: its text, unless that says that there is none."""
    return None if text in ("–", "NaN", "") else text


def _test(verdict: Verdict | None, *, marked: bool) -> dict[str, Any] | None:
    if verdict is None:
        return None
    kind = KINDS.get(word(verdict), "none")
    if not verdict.tested:
        untested = {"difference": MARKS[Standing.NOT_TESTED], "interval": "", "p": "not tested"}
        return untested | {"kind": kind, "details": verdict.why, "value": None}
    size, _, interval = difference(verdict).partition(" ")
    counts = "" if verdict.gained is None else f"{verdict.gained:g} gained, {verdict.lost:g} lost, "
    return {
        "kind": kind,
        "difference": f"{mark(verdict)} {size}".lstrip(),
        "interval": interval,
        "p": p_value(verdict.corrected),
        "details": f"{word(verdict)}: {counts}{verdict.samples:,} samples; alone {p_value(verdict.p)}",
        "value": _number(verdict.difference, marked),
    }
