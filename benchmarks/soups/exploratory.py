"""What is called exploratory: optimism of held-out scores, edits after a merge, other methods, and studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.soups.cells import NOTHING, amount, code, exploratory, rounded, spread, table
from benchmarks.soups.per_pool import names_of
from benchmarks.soups.pools import Pools
from benchmarks.soups.record import Record, Scored
from benchmarks.soups.statistics import (
    AGAINST,
    CANDIDATE,
    TEST,
    OverPools,
    differences,
    finished,
    least_of,
    score,
    small,
)
from merging.values.markdown import plain

BASES = ("uniform", "greedy-random", "affine")
EDITS = ("shrink", "lines", "monosoup")
ACCURACIES = frozenset({"held-out", "held_out", "test", "average", "shifted"})
"""Values of a study that are shown in per cent unless it says which are."""
OPTIMIST = "manifoldmix"


def edited(base: str, edit: str) -> str:
    """Name of the method that edits another one's merge."""
    return f"{base}-{edit}"


def optimism(pools: Pools) -> str:
    """Held-out − test accuracy: of single models, in the mean, and of every method."""
    return _by_group(pools, _optimism)


def _optimism(records: Sequence[Record]) -> str:
    def gap(record: Record, scored: Scored) -> float:
        return record.accuracy(scored, "held-out") - record.accuracy(scored, TEST)

    alone = [[gap(record, model) for model in record.models] for record in records if record.models]
    means = OverPools(tuple(sum(gaps) / len(gaps) for gaps in alone))
    rows = [["single models, mean", spread(means), NOTHING]]
    for name in _names(records):
        found = [gap(record, method) for record in records if (method := finished(record, name)) is not None]
        beside = [
            gap(record, one) - gap(record, other)
            for record in records
            if (one := finished(record, name)) is not None and (other := finished(record, OPTIMIST)) is not None
        ]
        told = NOTHING if name == OPTIMIST else exploratory(OverPools(tuple(beside)), least_of(records))
        rows.append([code(name), spread(OverPools(tuple(found))), told])
    return table(["method", "held-out − test, points", f"less {OPTIMIST}'s"], rows)


def edits(pools: Pools) -> str:
    """Three merges, each as it is and after three edits."""
    names = [edited(base, edit) for base in BASES for edit in EDITS]
    return _by_group(pools, _edits, lambda record: any(record.method(name) for name in names))


def _edits(records: Sequence[Record]) -> str:
    rows = []
    for base in BASES:
        for edit in ("none", *EDITS):
            name = base if edit == "none" else edited(base, edit)
            pools = [record for record in records if finished(record, name)]
            cells = [_mean(pools, name, outcome) for outcome in (TEST, "average")]
            for outcome in (TEST, "average"):
                change = differences(records, name, base, outcome)
                cells.append(NOTHING if edit == "none" else exploratory(change, least_of(records)))
            control = differences(records, name, edited(base, "shrink"), "average")
            cells.append(exploratory(control, least_of(records)) if edit == "monosoup" else NOTHING)
            rows.append([code(base), edit, str(len(pools)), *cells])
    heads = ["merge", "edit", "pools", TEST, "average", f"less unedited: {TEST}", "less unedited: average"]
    return table([*heads, "monosoup less shrink: average"], rows)


def others(pools: Pools) -> str:
    """Methods of the records that stand in no other table, and every method beside the best single model."""
    told = [_by_group(pools, _others, lambda record: bool(_further(record)))]
    if pools.records:
        told += [
            "Every method less `best`, in points, with 95 % t intervals over pools that nothing corrects: with so many "
            "methods one or two exclude 0 by chance.",
            _by_group(pools, _above_best),
        ]
    return "\n\n".join(told)


def _above_best(records: Sequence[Record]) -> str:
    few = any(small(record) for record in records)
    outcomes = [TEST, "average", *(["large"] if few else [])]
    rows = []
    for name in _names(records):
        found = [differences(records, name, "best", outcome) for outcome in outcomes]
        if name != "best":
            count = str(len(found[0].values))
            rows.append([code(name), count, *(exploratory(each, least_of(records)) for each in found)])
    heads = ["method", "pools", TEST, "average of the shifts"]
    return table([*heads, *(["average without the sets of few images"] if few else [])], rows)


def _further(record: Record) -> list[str]:
    shown = {CANDIDATE, *AGAINST, *(edited(base, edit) for base in BASES for edit in EDITS)}
    return [name for name in names_of(record) if name not in shown]


def _others(records: Sequence[Record]) -> str:
    rows = []
    for name in dict.fromkeys(name for record in records for name in _further(record)):
        found = [record for record in records if finished(record, name)]
        cells = [_mean(found, name, outcome) for outcome in ("held-out", TEST, "average")]
        cells += [
            exploratory(differences(records, name, CANDIDATE, each), least_of(records)) for each in (TEST, "average")
        ]
        facts = [method.facts for record in found if (method := finished(record, name)) is not None]
        cells += [amount(each.get(key) for each in facts) for key in ("inference_cost", "forward_equivalents")]
        rows.append([code(name), str(len(found)), *cells])
    heads = ["method", "pools", "held-out", TEST, "average", f"less {CANDIDATE}: {TEST}", f"less {CANDIDATE}: average"]
    return table([*heads, "passes a sample", "forward-equivalents"], rows)


def _mean(records: Iterable[Record], name: str, outcome: str) -> str:
    found = [score(record, method, outcome) for record in records if (method := finished(record, name)) is not None]
    return spread(OverPools(tuple(found)))


def _names(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in names_of(record)))


def _by_group(pools: Pools, made: Any, wanted: Any = lambda _: True) -> str:
    """A table for each family and part that has something to show."""
    found = []
    for (family, part), records in pools.groups.items():
        if kept := [record for record in records if wanted(record)]:
            count = f"{len(kept)} pools" if len(kept) > 1 else "1 pool"
            found.append(f"{plain(family)}, {part}, {count}:\n\n{made(kept)}")
    return "\n\n".join(found) or "No pool yet."


def studied(found: Sequence[Mapping[str, Any]]) -> str:
    """Studies, each a table: rows with the same values of ``by`` are one, its ``show`` as mean ± deviation."""
    return "\n\n".join(map(_study, found)) or "No study yet."


def _study(data: Mapping[str, Any]) -> str:
    by, show, rows = data["by"], data["show"], data["rows"]
    in_percent = set(data.get("percent", ACCURACIES & set(show)))
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[key]) for key in by), []).append(row)
    made = []
    for key, members in groups.items():
        count = len({str(row["pool"]) for row in members if "pool" in row}) or len(members)
        cells = [_shown([row[name] for row in members], percent=name in in_percent) for name in show]
        made.append([*map(plain, key), str(count), *cells])
    lines = [f"### {plain(data['study'])}", *([plain(data["note"])] if data.get("note") else [])]
    return "\n\n".join([*lines, table([*map(plain, by), "pools", *map(plain, show)], made)])


def _shown(values: Sequence[Any], *, percent: bool) -> str:
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return plain(", ".join(dict.fromkeys(map(str, values))))
    found = OverPools(tuple(numbers))
    if percent:
        return spread(found)
    digits = 0 if abs(found.mean) >= 100 else 1 if abs(found.mean) >= 10 else 2
    return spread(found, 1, digits) if len(set(numbers)) > 1 else rounded(numbers[0], digits)
