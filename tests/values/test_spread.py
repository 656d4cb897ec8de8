"""How far coefficients went, against its definition."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from merging.values.partition import Component, Partition
from merging.values.recipe import Ensemble, Ingredient, Recipe
from merging.values.spread import Spread, spread_from, spread_of

TENSORS = {"a": ((3, 2), "float32"), "b": ((2,), "float32"), "c": ((100,), "float32")}
MODELS = ("m0", "m1", "m2")
PARTITION = Partition((Component("a", ("a",)), Component("b", ("b",)), Component("c", ("c",), frozen=True)))


def recipe(table: list[list[float]], partition: Partition = PARTITION) -> Recipe:
    rows = tuple(Ingredient(f"m{number}", str(number)) for number in range(len(table)))
    return Recipe(rows, partition, np.array(table))


def test_against_the_definition() -> None:
    found = spread_of(recipe([[1.5, 0.5, 1.0], [-0.5, 0.5, 0.0]]), TENSORS, MODELS)
    assert found is not None
    a, b = np.array([6, 2]) / 8  # by their parameters; what is frozen counts for nothing
    assert found.distance == pytest.approx(a * np.sqrt(2.0) + b * 0)
    assert found.negative == pytest.approx(a * 0.5)
    assert found.effective_models == pytest.approx(a * (2.0**2 / 2.5) + b * 2)
    assert found.words() == "coefficients 1.06 from the mean, 38 % of them negative, 1.7 models count"


def test_plain_averages_are_even_whatever_the_pool() -> None:
    frozen = [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]  # the first model has the frozen part alone
    rounded = [[0.5] * 3, [0.5] * 3, [-2e-16] * 3]  # task arithmetic, whose scales sum to one
    for table, models in (([[1.0] * 3], 1), ([[0.5] * 3, [0.0] * 3, [0.5] * 3], 2), (frozen, 2), (rounded, 2)):
        found = spread_of(recipe(table), TENSORS, MODELS)
        assert found is not None
        assert found.even
        assert found.negative == 0.0
        assert found.effective_models == pytest.approx(models)


def test_the_base_is_no_model() -> None:
    edited = recipe([[0.4] * 3, [0.4] * 3, [0.2] * 3])
    found = spread_of(edited, TENSORS, ("m0", "m1"))
    assert found is not None
    assert found.effective_models == pytest.approx(2)
    assert found.distance == pytest.approx(np.sqrt(2) * 0.1)
    assert spread_of(recipe([[1.0] * 3]), TENSORS, ()) is None, "the base alone"


def test_what_has_none() -> None:
    frozen = Partition((Component("all", ("a", "b", "c"), frozen=True),))
    assert spread_of(recipe([[1.0]], frozen), TENSORS, MODELS) is None
    assert spread_of(recipe([[0.0] * 3]), TENSORS, MODELS) is None
    assert spread_of(Ensemble((recipe([[1.0] * 3]),), (1.0,)), TENSORS, MODELS) is None


def test_what_a_report_holds_is_read_back() -> None:
    spread = Spread(distance=0.5, negative=0.25, effective_models=3.0)
    assert spread_from(json.loads(json.dumps(dataclasses.asdict(spread)))) == spread
    assert spread_from(None) is None
