"""The tables over pools: what the protocol asks, and the same of pools that only repeat what was seen."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.soups.cells import (
    NOTHING,
    amount,
    between,
    code,
    exploratory,
    named,
    p_value,
    points,
    spread,
    table,
)
from benchmarks.soups.pools import CONFIRMATION, FURTHER, REPLICATION, Pools
from benchmarks.soups.record import Record, Scored
from benchmarks.soups.statistics import (
    AGAINST,
    CANDIDATE,
    FEWEST,
    LEAST,
    Compared,
    OverPools,
    compared,
    differences,
    finished,
    score,
    small,
)
from merging.values.markdown import plain

OUTCOMES = ("held-out", "test", "average")
COSTS = {
    "models in it": "ingredients",
    "passes a sample": "inference_cost",
    "evaluations": "evaluations",
    "forward-equivalents": "forward_equivalents",
    "seconds": "seconds",
}
"""Heading → which of a merge's facts it is; of a list, how long."""


def means(records: Sequence[Record], names: Sequence[str]) -> str:
    """A row a method: accuracies as mean ± standard deviation over the pools that have it, and costs."""
    rows = []
    for name in names:
        found = [(record, method) for record in records if (method := finished(record, name)) is not None]
        cells = [spread(OverPools(tuple(score(*each, outcome) for each in found))) for outcome in OUTCOMES]
        cells += costs_of([method for _, method in found])
        label = code(name) + (f" ({len(found)} of {len(records)} pools)" if len(found) < len(records) else "")
        rows.append([f"**{label}**" if name == CANDIDATE else label, *cells])
    return table(["method", "held-out", "test", "average of shifts", *COSTS], rows)


def costs_of(methods: Sequence[Scored]) -> list[str]:
    """Cells of a method's costs, means over pools."""
    told = [[method.facts.get(key) for method in methods] for key in COSTS.values()]
    return [amount(len(value) if isinstance(value, list) else value for value in values) for values in told]


def confirmation(pools: Pools) -> str:
    """The confirmatory tables, a family after another."""
    return "\n\n".join(_family(pools, family) for family in pools.families)


def replication(pools: Pools) -> str:
    """The same of pools whose sets were looked at before: intervals, and no claim."""
    return _beside(pools, REPLICATION) or "No pool of the replication yet."


def further(pools: Pools) -> str:
    """The same of pools that were added to the planned ones later, beside the claim."""
    return _beside(pools, FURTHER) or "No pool was added to the planned ones."


def _beside(pools: Pools, part: str) -> str:
    return "\n\n".join(_group(pools, family, part) for family in pools.families if pools.group(family, part))


def _family(pools: Pools, family: str) -> str:
    if not pools.group(family, CONFIRMATION):
        missing = pools.missing(family, CONFIRMATION)
        return f"### {plain(family)}\n\nNo pool yet" + (f" of {len(missing)} planned." if missing else ".")
    return _group(pools, family, CONFIRMATION)


def _group(pools: Pools, family: str, part: str) -> str:
    records = pools.group(family, part)
    found = compared(records)
    obstacles = pools.obstacles(family) if part == CONFIRMATION else []
    lines = [f"### {plain(family)}", f"{_pools(len(records))}: {named(record.name for record in records)}."]
    lines += [f"**{_capital('; '.join(obstacles))}: no claim.**"] if obstacles else []
    lines += [f"**{told}**" for told in [_protocols(pools, records)] if told]
    lines.append(means(records, (CANDIDATE, *AGAINST)))
    intervals = pools.testable(family, part)
    claims = part == CONFIRMATION and not obstacles
    lines.append(
        f"{CANDIDATE} less each of the others, in points. Average of the shifts is the primary outcome"
        + (
            ". Fewer than "
            + (f"{LEAST[family]} pools" if family in LEAST else "the pools of a rule")
            + ": no interval over pools."
            if not intervals
            else ", its *Holm interval* is at the level at which Holm's step-down over seven decides."
            if part == CONFIRMATION
            else "; intervals are 95 % t intervals over pools, and no claim follows."
        )
    )
    lines.append(_differences(found, part, intervals=intervals, claims=claims))
    if claims:
        lines.append(summary(found))
    if any(small(record) for record in records):
        lines += _large(records)
    return "\n\n".join(lines)


def _large(records: Sequence[Record]) -> list[str]:
    """The same differences without the shifted sets of few images, whose share of the average is noise."""
    sizes = {name: record.samples[name] for record in records for name in small(record)}
    rows = []
    for other in AGAINST:
        found = differences(records, CANDIDATE, other, "large")
        rows.append([code(other), exploratory(found, FEWEST), ", ".join(map(points, found.values)) or NOTHING])
    told = ", ".join(f"{plain(name)} ({count:,})" for name, count in sizes.items())
    heads = ["against", "average of the other shifts (95 % t interval)", "pool by pool"]
    return [f"Exploratory: the same without the sets of few images, {told}.", table(heads, rows)]


def _differences(found: Sequence[Compared], part: str, *, intervals: bool, claims: bool) -> str:
    holm = intervals and part == CONFIRMATION
    heads = ["against", "average of shifts", *(["Holm interval"] if holm else [])]
    heads += ["95 % t interval", "p"] if intervals else []
    heads += ["under shift"] if claims else []
    heads += ["test", *(["95 % t interval"] if intervals else []), *(["at home"] if claims else [])]
    heads += ["average of shifts, pool by pool", "test, pool by pool"]
    rows = []
    for each in found:
        enough = intervals and each.enough
        there = bool(each.pools)
        shift, home = each.words if claims else ("", "")
        cells = [points(each.shifted.mean) if there else NOTHING]
        cells += [between(each.interval) if enough and not each.absent else NOTHING] if holm else []
        cells += [between(each.shifted.interval()), p_value(each.shifted.p)] if enough else [NOTHING] * 2 * intervals
        cells += [_strong(shift)] if claims else []
        cells += [points(each.home.mean) if there else NOTHING]
        cells += [between(each.home.interval()) if enough else NOTHING] if intervals else []
        cells += [_strong(home)] if claims else []
        cells += [", ".join(map(points, values.values)) or NOTHING for values in (each.shifted, each.home)]
        fewer = [named(names) for names in (each.failed, each.absent) if names]
        label = code(each.against) + (f" ({_pools(len(each.pools))}; without {', '.join(fewer)})" if fewer else "")
        rows.append([label, *cells])
    return table(heads, rows)


def _strong(words: str) -> str:
    return words if words.startswith(("not shown", "no claim")) else f"**{words}**"


def summary(found: Sequence[Compared]) -> str:
    """What the words of all comparisons come to."""
    said = [(each.against, *each.words) for each in found]
    kinds = {
        "Better under shift than": [name for name, shift, _ in said if shift.startswith("better")],
        "Worse under shift than": [name for name, shift, _ in said if shift.startswith("worse")],
        "Under shift not shown against": [name for name, shift, _ in said if shift.startswith("not shown")],
        "No worse at home than": [name for name, _, home in said if home.startswith("no worse")],
        "At home not shown against": [name for name, _, home in said if home.startswith("not shown")],
        "No claim against": [name for name, shift, _ in said if shift.startswith("no claim")],
    }
    return " ".join(f"{kind} {named(names)}." for kind, names in kinds.items() if names)


def _protocols(pools: Pools, records: Sequence[Record]) -> str:
    """Which of these pools were made under another protocol than the one that stands beside the page."""
    other = [record.name for record in records if record.protocol != pools.protocol]
    return f"Made under another protocol than docs/results/protocol.md as it is: {named(other)}." if other else ""


def _pools(count: int) -> str:
    return "1 pool" if count == 1 else f"{count} pools"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
