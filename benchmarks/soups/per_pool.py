"""Pool by pool: every method's accuracy, how sure the pool's own samples are, and what the step took."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.soups.cells import NOTHING, amount, code, folded, own, percent, table
from benchmarks.soups.pools import Pools
from benchmarks.soups.record import Record
from benchmarks.soups.statistics import AGAINST, CANDIDATE, TEST, finished
from benchmarks.soups.tables import COSTS, costs_of
from merging.values.markdown import plain


def figures(pools: Pools) -> str:
    """A table a pool, folded."""
    if not pools.records:
        return "No pool yet."
    return "\n\n".join(_pool(record) for records in pools.groups.values() for record in records)


def names_of(record: Record) -> list[str]:
    """Its methods: those of the protocol first."""
    first = [name for name in (CANDIDATE, *AGAINST) if record.method(name) is not None]
    return [*first, *(method.name for method in record.methods if method.name not in first)]


def _pool(record: Record) -> str:
    candidate = finished(record, CANDIDATE)
    heads = ["method", "held-out", TEST, *map(plain, record.shifts), "average"]
    heads += [f"{CANDIDATE} less it: {TEST}", f"{CANDIDATE} less it: average"]
    rows = []
    for name in names_of(record):
        method = finished(record, name)
        if method is None:
            failed = record.method(name)
            why = " ".join(str(failed.facts.get("why") or "it says no reason").split()) if failed is not None else ""
            rows.append([code(name), f"failed: {plain(why)}", *[NOTHING] * (len(heads) - 2)])
            continue
        cells = [percent(record.accuracy(method, each)) for each in ("held-out", TEST, *record.shifts)]
        cells.append(percent(record.shifted(method)))
        cells += [own(record, candidate, method, *sets) for sets in ((TEST,), record.shifts)]
        rows.append([code(name), *cells])
    scores = sorted(record.shifted(model) for model in record.models)
    about = (
        f"{len(record.models)} models"
        + (f", alone {percent(scores[0])} to {percent(scores[-1])} under shift" if scores else "")
        + "; samples: "
        + ", ".join(f"{plain(name)} {count:,}" for name, count in record.samples.items())
        + f"; seed {record.seed}; protocol {plain(record.protocol[:12])}. In brackets: 95 % intervals over its samples."
    )
    title = f"{plain(record.name)} ({record.part})"
    return folded(title, about[0].upper() + about[1:], table(heads, rows))


def costs(pools: Pools) -> str:
    """What each method costs in the mean over pools, and what each step took on which machine."""
    if not pools.records:
        return "No pool yet."
    lines = []
    for family in pools.families:
        records = [record for record in pools.records if record.family == family]
        if records:
            lines += [f"{plain(family)}, means over {len(records)} pools:", _methods(records)]
    timed = list(dict.fromkeys(key for record in pools.records for key in record.measured.get("seconds", {})))
    heads = ["pool", "part", "models", "held-out samples", "device", *(f"{plain(key)}, seconds" for key in timed)]
    rows = [
        [
            plain(record.name),
            record.part,
            str(len(record.models)),
            f"{record.samples['held-out']:,}",
            plain(record.measured.get("device", NOTHING)),
            *(amount([record.measured.get("seconds", {}).get(key)]) for key in timed),
        ]
        for record in pools.records
    ]
    return "\n\n".join([*lines, "What each step took:", table(heads, rows)])


def _methods(records: Sequence[Record]) -> str:
    names = list(dict.fromkeys(name for record in records for name in names_of(record)))
    rows = []
    for name in names:
        found = [method for record in records if (method := finished(record, name)) is not None]
        rows.append([code(name), str(len(found)), *costs_of(found)])
    return table(["method", "pools", *COSTS], rows)
