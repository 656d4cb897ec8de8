"""The tables over pools: what the protocol asks, and the same of pools that only repeat what was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.soups.cells import (
    NOTHING,
    amount,
    between,
    code,
    exploratory,
    folded,
    named,
    own,
    p_value,
    points,
    runs,
    spread,
    table,
)
from benchmarks.soups.pools import CONFIRMATION, FURTHER, REPLICATION, Pools
from benchmarks.soups.record import Record, Scored
from benchmarks.soups.statistics import (
    AGAINST,
    CANDIDATE,
    LEAST,
    TEST,
    Compared,
    OverPools,
    compared,
    differences,
    finished,
    large,
    least_of,
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
BRIEFLY = ("models in it", "passes a sample", "forward-equivalents")
"""Costs that stand beside accuracies."""


def means(records: Sequence[Record], names: Sequence[str]) -> str:
    """A row a method: accuracies as mean ± standard deviation over the pools that have it, and costs."""
    rows = []
    for name in names:
        found = [(record, method) for record in records if (method := finished(record, name)) is not None]
        cells = [spread(OverPools(tuple(score(*each, outcome) for each in found))) for outcome in OUTCOMES]
        cells += costs_of([method for _, method in found], BRIEFLY)
        label = code(name) + (f" ({len(found)} of {len(records)} pools)" if len(found) < len(records) else "")
        rows.append([f"**{label}**" if name == CANDIDATE else label, *cells])
    return table(["method", "held-out", "test", "average of shifts", *BRIEFLY], rows)


def costs_of(methods: Sequence[Scored], heads: Iterable[str] = COSTS) -> list[str]:
    """Cells of a method's costs, means over pools."""
    told = [[method.facts.get(COSTS[head]) for method in methods] for head in heads]
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
    intervals = pools.testable(family, part)
    claims = part == CONFIRMATION and not obstacles
    lines = [f"### {plain(family)}"]
    lines += [f"**{_capital('; '.join(obstacles))}: no claim.**"] if obstacles else []
    lines += [f"**{told}**" for told in [_protocols(pools, records)] if told]
    lines += [summary(found)] if claims else []
    lines.append(f"{_pools(len(records))}: {runs(record.name for record in records)}.")
    lines.append(
        f"`{CANDIDATE}` less each of the others, in points, means over pools. Average of the shifts is the primary "
        "outcome"
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
    few = any(small(record) for record in records)
    lines += _large(records) if few else []
    lines += ["Accuracies in %, mean ± standard deviation over pools:", means(records, (CANDIDATE, *AGAINST))]
    each = _each(records)
    lines += (
        [folded(f"{plain(family)}, {part}: {CANDIDATE} less each of the others, pool by pool", *each)]
        if intervals
        else each
    )
    return "\n\n".join(lines)


def _large(records: Sequence[Record]) -> list[str]:
    """The same differences without the shifted sets of few images, whose share of the average is noise."""
    sizes = {name: record.samples[name] for record in records for name in small(record)}
    rows = [
        [code(other), exploratory(differences(records, CANDIDATE, other, "large"), least_of(records))]
        for other in AGAINST
    ]
    told = ", ".join(f"{plain(name)} ({count:,})" for name, count in sizes.items())
    heads = ["against", "average of the other shifts (95 % t interval)"]
    return [f"Exploratory: the same without the sets of few images, {told}.", table(heads, rows)]


def _each(records: Sequence[Record]) -> list[str]:
    """A row a pool: the differences with the intervals over its own samples."""
    outcomes: dict[str, Callable[[Record], Sequence[str]]] = {
        "Average of the shifts": lambda record: record.shifts,
        "Test": lambda _: (TEST,),
    }
    if any(small(record) for record in records):
        outcomes["Average of the shifts without the sets of few images"] = large
    told = []
    for title, sets in outcomes.items():
        rows = [
            [
                code(record.name),
                *(own(record, finished(record, CANDIDATE), finished(record, name), *sets(record)) for name in AGAINST),
            ]
            for record in records
        ]
        told += [
            f"{title}, `{CANDIDATE}` less each of the others; in brackets 95 % intervals over the pool's samples:",
            table(["pool", *map(code, AGAINST)], rows),
        ]
    return told


def _differences(found: Sequence[Compared], part: str, *, intervals: bool, claims: bool) -> str:
    holm = intervals and part == CONFIRMATION
    heads = ["against", "average of shifts", *(["Holm interval"] if holm else [])]
    heads += ["95 % t interval", "p"] if intervals else []
    heads += ["under shift"] if claims else []
    heads += ["test", *(["95 % t interval"] if intervals else []), *(["at home"] if claims else [])]
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
        fewer = [named(names) for names in (each.failed, each.absent) if names]
        label = code(each.against) + (f" ({_pools(len(each.pools))}; without {', '.join(fewer)})" if fewer else "")
        rows.append([label, *cells])
    return table(heads, rows)


def _strong(words: str) -> str:
    return words if words.startswith(("not shown", "no claim")) else f"**{words}**"


def summary(found: Sequence[Compared]) -> str:
    """The verdict of a family in a line each for shift and home; what won or lost nowhere is said to."""
    said = [(each.against, *each.words) for each in found]

    def of(place: int, words: str) -> list[str]:
        return [each[0] for each in said if each[place].startswith(words)]

    lines = [
        f"**Under shift** `{CANDIDATE}` is better than {_none(of(1, 'better'))}",
        *([f"worse than {named(names)}"] if (names := of(1, "worse")) else []),
        *([f"not shown to be either against {named(names)}"] if (names := of(1, "not shown")) else []),
    ]
    home = [
        f"**At home** it is no worse than {_none(of(2, 'no worse'))}",
        *([f"not shown against {named(names)}"] if (names := of(2, "not shown")) else []),
    ]
    told = [f"{'; '.join(lines)}.", f"{'; '.join(home)}."]
    told += [f"No claim against {named(names)}."] if (names := of(1, "no claim")) else []
    return "\n".join(f"- {line}" for line in told)


def _none(names: Sequence[str]) -> str:
    return named(names) if names else "none of the others"


def _protocols(pools: Pools, records: Sequence[Record]) -> str:
    """Which of these pools were made under another protocol than the one that stands beside the page."""
    other = [record.name for record in records if pools.otherwise(record)]
    return f"Made under another protocol than docs/results says now: {named(other)}." if other else ""


def _pools(count: int) -> str:
    return "1 pool" if count == 1 else f"{count} pools"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
