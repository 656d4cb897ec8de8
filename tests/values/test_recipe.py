"""Recipes: lineage in JSON, exact floats, frozen components, keys that see what decides the logits."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merging.errors import RecipeError
from merging.values.partition import Partition
from merging.values.recipe import Ingredient, Recipe

A, B, C = (Ingredient(name, name * 8, f"/{name}.pt") for name in "abc")
PARTITION = Partition.of_groups({"x": ["x1", "x2"], "y": ["y"]})
FROZEN = PARTITION.with_frozen(["^y$"])
INERT = PARTITION.with_marks(untouched={"y"})
weights = hnp.arrays(np.float64, (2, 2), elements=st.floats(-5, 5))


def test_shapes_and_numbers_are_checked() -> None:
    for table in (np.ones((2, 2)), np.ones((1, 3)), np.ones(2)):
        with pytest.raises(RecipeError, match="shape"):
            Recipe((A,), PARTITION, table)
    with pytest.raises(RecipeError, match="shape"):
        Recipe((), PARTITION, np.ones((0, 2)))
    for bad in (np.nan, np.inf):
        with pytest.raises(RecipeError, match="NaN"):
            Recipe((A,), PARTITION, np.array([[1.0, bad]]))


def test_coefficients_are_a_copy_and_read_only() -> None:
    table = np.ones((1, 2))
    recipe = Recipe((A,), PARTITION, table)
    table[0, 0] = 5
    assert recipe.coefficients[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        recipe.coefficients[0, 0] = 2


@given(weights)
def test_json_keeps_every_bit(table: np.ndarray) -> None:
    recipe = Recipe((A, B), FROZEN, table)
    back = Recipe.from_json(json.loads(json.dumps(recipe.to_json(), allow_nan=False)))
    assert back.coefficients.tobytes() == recipe.coefficients.tobytes()
    assert (back.ingredients, back.partition) == (recipe.ingredients, recipe.partition)
    assert back.key() == recipe.key()


def test_overrides_are_named_by_hash() -> None:
    override = {"y": torch.tensor([1.0, 2.0])}
    data = Recipe((A,), PARTITION, np.ones((1, 2)), override).to_json()
    assert torch.equal(Recipe.from_json(data, override).overrides["y"], override["y"])
    for wrong in ({}, {"y": torch.tensor([1.0, 3.0])}, {"y": torch.tensor([1.0, 2.0]).double()}):
        with pytest.raises(RecipeError, match="override 'y'"):
            Recipe.from_json(data, wrong)


def _damaged() -> list[Any]:
    good = Recipe((A, B), PARTITION, np.ones((2, 2))).to_json()
    wrong: list[Any] = [None, [], {}, "recipe", {**good, "format": "merging-recipe/99"}, {**good, "ingredients": 5}]
    for path, value in [(("components", 0, "coefficients"), ["x", "y"]), (("components", 0, "coefficients"), [1.0])]:
        data = copy.deepcopy(good)
        data[path[0]][path[1]][path[2]] = value
        wrong.append(data)
    return [*wrong, {**good, "components": []}, {key: value for key, value in good.items() if key != "overrides"}]


@pytest.mark.parametrize("data", _damaged(), ids=range(len(_damaged())))
def test_damage_is_a_recipe_error(data: Any) -> None:
    with pytest.raises(RecipeError):
        Recipe.from_json(data)


def test_single_mean_names_terms() -> None:
    mean = Recipe.mean([A, B, C], PARTITION)
    assert (mean.coefficients == 1 / 3).all()
    assert mean.names == ("a", "b", "c")
    partly = Recipe((A, B), PARTITION, np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert partly.names == ("a",)
    assert partly.terms(0) == [(A, 1.0)]
    assert partly.terms(1) == []


@given(weights, weights, hnp.arrays(np.float64, 2, elements=st.floats(-1, 2)))
def test_lerp_is_the_formula(first: np.ndarray, second: np.ndarray, lam: np.ndarray) -> None:
    mixed = Recipe((A, B), PARTITION, first).lerp(Recipe((B, C), PARTITION, second), lam)
    assert mixed.ingredients == (A, B, C)
    wanted = np.zeros((3, 2))
    for column in range(2):
        wanted[0, column] = lam[column] * first[0, column]
        wanted[1, column] = lam[column] * first[1, column] + (1 - lam[column]) * second[0, column]
        wanted[2, column] = (1 - lam[column]) * second[1, column]
    assert np.array_equal(mixed.coefficients, wanted)


@pytest.mark.parametrize("k", range(1, 20))
def test_running_averages_are_uniform(k: int) -> None:
    """λ = k/(k + 1) takes the mean of k models to that of k + 1."""
    models = [Ingredient(f"m{i}", f"h{i}") for i in range(k + 1)]
    mixed = Recipe.mean(models[:k], PARTITION).lerp(Recipe.single(models[k], PARTITION), k / (k + 1))
    assert np.allclose(mixed.coefficients, 1 / (k + 1), rtol=1e-14, atol=0)


def test_frozen_components_stay_with_the_first_ingredient() -> None:
    mean = Recipe.mean([A, B], FROZEN)
    assert mean.coefficients.tolist() == [[0.5, 1.0], [0.5, 0.0]]
    mixed = mean.lerp(Recipe.single(C, FROZEN), 0.25)
    assert mixed.coefficients[:, 1].tolist() == [1.0, 0.0, 0.0]


def test_other_partitions_cannot_be_mixed() -> None:
    with pytest.raises(RecipeError, match="partitions"):
        Recipe.single(A, PARTITION).lerp(Recipe.single(B, Partition.of_groups({"z": ["x1", "x2", "y"]})), 0.5)


def test_keys_see_what_decides_the_logits() -> None:
    def key(table: list[list[float]], partition: Partition = PARTITION, rows: tuple[Ingredient, ...] = (A, B)) -> str:
        return json.dumps(Recipe(rows, partition, np.array(table)).key())

    base = key([[0.5, 0.25], [0.5, 0.75]])
    assert base == key([[0.5, 0.25], [0.5, 0.75]], rows=(Ingredient("other name", A.hash), B))
    assert base != key([[0.5, 0.25], [0.5, 0.75]], rows=(A, C))
    assert base != key([[0.5, 0.25], [0.5, np.nextafter(0.75, 1)]])
    assert base != key([[0.25, 0.5], [0.75, 0.5]])
    assert key([[0.5, 0.1], [0.5, 0.9]], INERT) == key([[0.5, 0.7], [0.5, 0.3]], INERT)
    assert key([[0.4, 0.1], [0.6, 0.9]], INERT) != key([[0.5, 0.7], [0.5, 0.3]], INERT)
    whole = Partition.of_groups({"all": ["x1", "x2", "y"]})
    assert key([[0.5, 0.5], [0.5, 0.5]]) == key([[0.5], [0.5]], whole)
    other = Partition.of_groups({"x": ["x1"], "y": ["x2", "y"]})
    assert base != key([[0.5, 0.25], [0.5, 0.75]], other)
