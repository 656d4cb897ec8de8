"""How far a merge's coefficients went from the plain average: distance, negative ones, the models that count."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from merging.values.partition import TensorInfo
from merging.values.recipe import Merge, Recipe

NEAR = 1e-9
"""Coefficients, and distances from the mean, that are rounding."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The spread of a linear merge's coefficients, as means over its active components by their numbers of parameters.

    Attributes:
        distance: root of the sum of (α − 1/n)² over the n models that carry weight in any of them; 0: a plain average.
            The base is no model: what it takes makes the others smaller.
        negative: share of the models that carry weight there, whose coefficient is negative.
        effective_models: (Σ|α|)² / Σα², the number of models that count: n in a plain average, 1 where one has all.
    """

    distance: float
    negative: float
    effective_models: float

    @property
    def even(self) -> bool:
        """Whether it is a plain average of its models, of which there is nothing to tell."""
        return self.distance < NEAR

    def words(self) -> str:
        """One line for people.

        >>> Spread(distance=0.537, negative=0.31, effective_models=7.26).words()
        'coefficients 0.54 from the mean, 31 % of them negative, 7.3 models count'
        """
        negative = f"{100 * self.negative:.0f} % of them negative" if self.negative else "none negative"
        return f"coefficients {self.distance:.2f} from the mean, {negative}, {self.effective_models:.1f} models count"


def spread_of(merged: Merge, tensors: Mapping[str, TensorInfo], models: Collection[str]) -> Spread | None:
    """Measures a recipe's coefficients; None of merges that have none, and where no component is active.

    Args:
        merged: the merge.
        tensors: name → (shape, dtype name) of the model's tensors.
        models: names of the pool's models; other ingredients, such as the base, do not count.
    """
    if not isinstance(merged, Recipe) or not merged.partition.active:
        return None
    components, columns = merged.partition.components, list(merged.partition.active)
    named = np.array([row.name in models for row in merged.ingredients], dtype=bool)
    table = merged.coefficients[named][:, columns]
    table = np.where(np.abs(table) < NEAR, 0.0, table)[(np.abs(table) >= NEAR).any(axis=1)]
    sizes = [sum(int(np.prod(tensors[name][0])) for name in components[column].tensors) for column in columns]
    squares = (table**2).sum(0)
    if not len(table) or not squares.all():
        return None
    values: dict[str, Any] = {
        "distance": np.sqrt(((table - 1 / len(table)) ** 2).sum(0)),
        "negative": (table < 0).sum(0) / (table != 0).sum(0),
        "effective_models": np.abs(table).sum(0) ** 2 / squares,
    }
    weights = np.array(sizes) if sum(sizes) else None
    return Spread(**{name: float(np.average(value, weights=weights)) for name, value in values.items()})


def spread_from(data: Mapping[str, Any] | None) -> Spread | None:
    """Reads what a report holds; None in earlier ones, and of merges without coefficients."""
    return None if data is None else Spread(**{name: float(data[name]) for name in Spread.__dataclass_fields__})
