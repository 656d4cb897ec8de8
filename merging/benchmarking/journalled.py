"""The search of a run, from its journal: how the best held-out score of each strategy rose, and at what price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from merging.errors import DAMAGED, FolderError
from merging.plugins.task import HELD_OUT
from merging.storage.journal import FILE, read_events
from merging.values.sums import in_order

Curve: TypeAlias = tuple[tuple[float, int, float], ...]
"""(forward-equivalents, evaluations, best held-out score so far), a line for each improvement."""


Stretch: TypeAlias = list[tuple[float, float | None, int]]
"""The held-out passes that a run has made for one strategy: price, score (of a test none), and how many evaluations
it was: 1, or 0 where an evaluation ends a test that was counted."""


def header_of(folder: Path) -> Mapping[str, Any]:
    """Reads what a run's journal begins with: the fingerprints of its data, the hashes of its models.

    Returns:
        Nothing where there is no journal, or it does not begin with a run.
    """
    path = folder / FILE
    try:
        with open(path, "rb") as file:
            events = read_events(file.readline(), path)
    except (OSError, FolderError):
        return {}
    return events[0] if events and events[0]["event"] == "run" else {}


def curves(folder: Path, report: Mapping[str, Any]) -> dict[str, Curve]:
    """The search of each of a run's strategies, as if it had run alone.

    A journal has each evaluation once, with the strategy that asked for it first. What a later one asked again is put
    before its own: first the ranking of the single models, where it asked for as many as there are, then what else it
    needed according to its row. Gradients are in no journal; their passes are spread evenly over its evaluations.

    Args:
        folder: the run's folder.
        report: what its ``report.json`` holds.

    Returns:
        Strategy → its curve; of none where there is no journal, or one of another run (one that is going on there).
    """
    path = folder / FILE
    try:
        stretches = _stretches(read_events(path.read_bytes(), path, until="stopped"))
    except DAMAGED:
        return {}
    if sum(map(_evaluations, stretches.values())) != report["evaluations"]:
        return {}
    ranking = stretches.get("best", [])
    rows = {row["strategy"]: row for row in report["rows"]}
    return {
        name: _curve(own, ranking if name != "best" else [], rows[name])
        for name, own in stretches.items()
        if name in rows
    }


def _stretches(events: Iterable[Mapping[str, Any]]) -> dict[str, Stretch]:
    """The held-out passes of each strategy, in order; outcomes of record are no part of a search."""
    found: dict[str, Stretch] = {}
    tested: set[str] = set()
    own: Stretch = []
    for event in events:
        kind = event["event"]
        if kind == "strategy":
            own = found.setdefault(event["name"], [])
        elif kind == "test":
            own.append((float(event.get("passes", 0.0)), None, int(event["key"] not in tested)))
            tested.add(event["key"])
        elif kind == "evaluation" and event["split"] == HELD_OUT and not event.get("record"):
            own.append((float(event.get("passes", 1.0)), float(event["score"]), int(event["key"] not in tested)))
    return found


def _curve(own: Stretch, ranking: Stretch, row: Mapping[str, Any]) -> Curve:
    known = max(int(row["evaluations"]) - _evaluations(own), 0)
    first = ranking if 0 < _evaluations(ranking) <= known else []
    rest = known - _evaluations(first)  # asked again, nobody knows which
    missing = float(row["forward_equivalents"]) - in_order(price for price, *_ in [*first, *own]) - rest
    share = max(missing, 0.0) / max(len(own), 1)
    spent, count, lines = 0.0, 0, list[tuple[float, int, float]]()
    for price, score, counts in [*first, (float(rest), None, rest), *((p + share, s, n) for p, s, n in own)]:
        spent, count = spent + price, count + counts
        if score is not None and (not lines or score > lines[-1][2]):
            lines.append((spent, count, score))
    return tuple(lines)


def _evaluations(stretch: Stretch) -> int:
    return sum(counts for *_, counts in stretch)
