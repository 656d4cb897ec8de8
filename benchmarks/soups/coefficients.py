"""How far coefficients go from the mean, in which layers, and which kinds of model are weighted negatively."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.soups.cells import NOTHING, code, folded, rounded, spread, table
from benchmarks.soups.pools import Pools
from benchmarks.soups.record import Record, Scored
from benchmarks.soups.statistics import OverPools, finished, least_of
from merging.values.markdown import plain

METHODS = ("affine", "learned")
LAYERS = 8
"""Of the layers so many are shown, those with the most negative weight first."""


@dataclass(frozen=True)
class Reach:
    """How far coefficients went, in the mean over components.

    Attributes:
        norm: root of the mean of Σ α².
        distance: the same of α − 1/n.
        negative: share of the coefficients that are negative.
        effective: mean of (Σ |α|)² / Σ α², the effective number of models: n where all are alike, 1 where one has all.
    """

    norm: float
    distance: float
    negative: float
    effective: float


def reach(values: NDArray[np.float64]) -> Reach:
    """Measures coefficients, shape ``(models, components)``.

    >>> reach(np.array([[0.5], [0.5]])).effective
    2.0
    """
    squares = np.square(values).sum(0)
    absolute = np.square(np.abs(values).sum(0))
    effective = np.divide(absolute, squares, out=np.zeros_like(squares), where=squares > 0)
    return Reach(
        norm=math.sqrt(squares.mean()),
        distance=math.sqrt(np.square(values - 1 / len(values)).sum(0).mean()),
        negative=float((values < 0).mean()),
        effective=float(effective.mean()),
    )


@dataclass(frozen=True)
class Mixed:
    """A merge's coefficients, a row for each model of the pool and for whatever else it was made of.

    Attributes:
        models: names of the rows.
        components: names of the columns.
        values: shape ``(models, components)``.
    """

    models: tuple[str, ...]
    components: tuple[str, ...]
    values: NDArray[np.float64]


def mixed(record: Record, method: Scored | None) -> Mixed | None:
    """Reads a merge's coefficients; None where it has none. Models that it leaves out have 0."""
    if method is None or not method.coefficients:
        return None
    ingredients = list(method.coefficients["ingredients"])
    names = list(dict.fromkeys([*(model.name for model in record.models), *ingredients]))
    components = tuple(map(str, method.coefficients["components"]))
    values = np.zeros((len(names), len(components)))
    for name, row in zip(ingredients, method.coefficients["values"], strict=True):
        values[names.index(name)] += np.asarray(row, dtype=np.float64)
    return Mixed(tuple(names), components, values)


def coefficients(pools: Pools) -> str:
    """All tables of coefficients."""
    found = [part for part in (_reaches(pools), *_layers(pools), *_kinds(pools)) if part]
    return "\n\n".join(found) or "No pool yet."


MEASURES: Mapping[str, tuple[Callable[[Reach], float], int]] = {
    "norm": (lambda far: far.norm, 3),
    "distance from the mean": (lambda far: far.distance, 3),
    "negative, %": (lambda far: 100 * far.negative, 0),
    "effective number of models": (lambda far: far.effective, 1),
}
"""Heading → the measure, and its decimals."""


def _reaches(pools: Pools) -> str:
    """How far coefficients went: means over the pools of a family and part, and pool by pool."""
    every, means = [], []
    for (family, part), records in pools.groups.items():
        for name in METHODS:
            made = [(record, mixed(record, finished(record, name))) for record in records]
            found = [(record, each, reach(each.values)) for record, each in made if each is not None]
            if not found:
                continue
            shapes = dict.fromkeys(f"{len(each.models)} × {len(each.components)}" for _, each, _ in found)
            over = [
                spread(OverPools(tuple(measure(far) for *_, far in found)), 1, digits)
                for measure, digits in MEASURES.values()
            ]
            means.append([f"{plain(family)}, {part}", str(len(found)), code(name), ", ".join(shapes), *over])
            for record, each, far in found:
                cells = [rounded(measure(far), digits) for measure, digits in MEASURES.values()]
                every.append([plain(record.name), code(name), f"{len(each.models)} × {len(each.components)}", *cells])
    if not means:
        return ""
    heads = ["method", "models × components", *MEASURES]
    return "\n\n".join(
        [
            table(["family", "pools", *heads], means),
            folded("The same, pool by pool", table(["pool", *heads], sorted(every, key=lambda row: row[0]))),
        ]
    )


def _of(records: Sequence[Record]) -> list[tuple[Record, Mixed]]:
    made = [(record, mixed(record, finished(record, METHODS[0]))) for record in records]
    return [(record, each) for record, each in made if each is not None]


def _layers(pools: Pools) -> list[str]:
    """The layers with the most negative weight of each family and part, and those furthest from uniform."""
    told = []
    for (family, part), records in pools.groups.items():
        found = _of(records)
        negative: dict[str, list[float]] = {}
        distance: dict[str, list[float]] = {}
        for _, each in found:
            for name, column in zip(each.components, each.values.T, strict=True):
                negative.setdefault(name, []).append(float(-column[column < 0].sum()))
                distance.setdefault(name, []).append(float(np.linalg.norm(column - 1 / len(column))))
        if not negative:
            continue
        means = {name: math.fsum(values) / len(values) for name, values in negative.items()}
        far = {name: math.fsum(values) / len(values) for name, values in distance.items()}
        # sorted by rounded values, so that ties fall alike on every machine
        first = sorted(means, key=lambda name: -round(means[name], 6))[:LAYERS]
        furthest = sorted(far, key=lambda name: -round(far[name], 6))[:LAYERS]
        rows = [
            [plain(name), spread(OverPools(tuple(negative[name])), 1), spread(OverPools(tuple(distance[name])), 1)]
            for name in first
        ]
        told += [
            f"{plain(family)}, {part}: components with the most negative weight of `{METHODS[0]}` "
            f"({len(first)} of {len(means)}, means over {_count(found)}):",
            table(["component", "sum of negative coefficients, without sign", "distance from the mean"], rows),
            f"Furthest from the mean: {', '.join(f'{plain(name)} ({rounded(far[name])})' for name in furthest)}.",
        ]
    return told


def _kinds(pools: Pools) -> list[str]:
    """What coefficients go with: held-out accuracy and hyper-parameters of the models."""
    told = []
    for (family, part), records in pools.groups.items():
        found = _of(records)
        ranks: dict[str, list[float]] = {}
        shares: dict[tuple[str, str], list[float]] = {}
        for record, each in found:
            weight = each.values[: len(record.models)].mean(1)  # the pool's models come first
            for fact, values in _facts(record).items():
                if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
                    if (correlation := _spearman(values, weight)) is not None:
                        ranks.setdefault(fact, []).append(correlation)
                elif len(set(map(str, values))) > 1:
                    for value in dict.fromkeys(map(str, values)):
                        chosen = [str(other) == value for other in values]
                        shares.setdefault((fact, value), []).append(float(len(weight) * weight[chosen].mean()))
        if not ranks:
            continue
        rows = [[plain(fact), *_cells(values, least_of(records))] for fact, values in ranks.items()]
        told += [
            f"{plain(family)}, {part}: rank correlation (Spearman) of a model's mean coefficient of `{METHODS[0]}` "
            f"with what it is, over {_count(found)} (exploratory):",
            table(["of the model", "pools", "correlation", "95 % t interval"], rows),
        ]
        if shares:
            rows = [
                [plain(fact), plain(value), str(len(values)), spread(OverPools(tuple(values)), 1)]
                for (fact, value), values in sorted(shares.items())
            ]
            told += [
                "Mean coefficient, times the number of models (1: as in the mean of all):",
                table(["of the model", "value", "pools", "mean"], rows),
            ]
    return told


def _facts(record: Record) -> Mapping[str, list[object]]:
    """What all models of a pool tell: the held-out accuracy, then hyper-parameters that differ."""
    found: dict[str, list[object]] = {
        "held-out accuracy": [record.accuracy(model, "held-out") for model in record.models]
    }
    for key in dict.fromkeys(key for model in record.models for key in model.facts if key != "seed"):
        values = [model.facts.get(key) for model in record.models]
        if all(isinstance(value, int | float | str) for value in values) and len(set(map(str, values))) > 1:
            found[key.replace("_", " ")] = values
    return found


def _spearman(values: Sequence[object], weight: NDArray[np.float64]) -> float | None:
    """Rank correlation; None where one side is constant."""
    from scipy.stats import spearmanr

    known = np.asarray(values, dtype=np.float64)
    if len(known) < 3 or np.ptp(known) == 0 or np.ptp(weight) == 0:
        return None
    return float(spearmanr(known, weight).statistic)


def _cells(values: Sequence[float], least: int) -> list[str]:
    found = OverPools(tuple(values))
    if len(values) < least:
        return [str(len(values)), spread(found, 1), NOTHING]
    low, high = found.interval()
    return [str(len(values)), spread(found, 1), f"{rounded(low)} to {rounded(high)}"]


def _count(found: Sequence[object]) -> str:
    return "1 pool" if len(found) == 1 else f"{len(found)} pools"
