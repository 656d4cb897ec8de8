"""Edits of a merge that is there: its change from the base, scaled or replaced tensor by tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from merging.errors import RequirementError
from merging.plugins.problem import Problem
from merging.plugins.strategy import MixStrategy, mixed
from merging.storage.agreement import ties
from merging.storage.pool import ModelPool
from merging.values.partition import Partition
from merging.values.recipe import Ensemble, Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor

Edit: TypeAlias = Callable[[str, "Tensor", "Tensor"], "Tensor"]
"""A tensor's name, its change from the base and the base, float64 → the edited change, of the same shape."""


def inner_merge(strategy: MixStrategy, inner: MixStrategy | None, problem: Problem) -> Recipe | Weights:
    """Makes the merge that a strategy edits: that of its inner strategy, the uniform average where there is none.

    Raises:
        RequirementError: the inner strategy gives an ensemble, which is no single model.
    """
    merged = problem.mean(range(len(problem.pool))) if inner is None else mixed(inner, problem)
    if isinstance(merged, Ensemble):
        raise RequirementError(f"{strategy.name} edits a single model, but its inner strategy gives an ensemble")
    return merged


def scaled(recipe: Recipe, pool: ModelPool, factors: Mapping[str, float], parts: Mapping[str, str]) -> Recipe:
    """Scales the change of a recipe's model from the base: θ_0 + c · (θ − θ_0), a factor c for each tensor.

    The result is the exact recipe, whatever components the given one has: they are divided where the factors need it.

    Args:
        recipe: the merge.
        pool: the models and their base.
        factors: name of a tensor → c, for all tensors.
        parts: name of a tensor → name of the part of the network that has its factor.

    Raises:
        RecipeError: the recipe has overrides, which are not linear.
    """
    fine = _divided(recipe, parts)
    shares = np.array([factors[component.tensors[0]] for component in fine.partition.components])
    return fine.lerp(Recipe.single(pool.base_ingredient, fine.partition), shares)


def edited(problem: Problem, strategy: MixStrategy, merged: Recipe | Weights, edit: Edit) -> Weights:
    """Edits the change of a merge from the base tensor by tensor: θ_0 + edit(θ − θ_0).

    Of tensors that are one storage in all models and the base, one is edited and the others are its copies. Where the
    edit gives the very change that it was given, the merge's tensor stays as it is, to the bit.
    """
    groups = {name: group for group in ties(problem.pool.with_base) for name in group}
    waiting: dict[str, tuple[Tensor, set[str]]] = {}  # first of a group → its result, and who has not had it yet
    whole = _from_given(merged, problem.pool)

    def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
        if base is None:
            raise RuntimeError("the core gives a base where one is needed")
        home = groups.get(name, (name,))[0]
        if home in waiting and name in waiting[home][1]:
            result, left = waiting[home]
            left.remove(name)
            if not left:
                del waiting[home]
            return result.clone()
        merge = whole(name, models, base)
        change = merge - base
        result = merge if (new := edit(name, change, base)) is change else base + new
        if name in groups:
            waiting[home] = (result, {*groups[name]} - {name})
        return result

    return problem.weights(strategy, combine)


def reader(merged: Recipe | Weights, pool: ModelPool) -> Callable[[str], Tensor]:
    """Gives a function that reads one tensor of a merge in float64, from the files or where it was computed.

    A recipe's tensor is its sum before it is cast.
    """
    import torch

    from merging.mixing.arithmetic import materialise_tensor

    if isinstance(merged, Weights):
        return lambda name: merged.tensors[name].double()
    columns = _columns(merged)
    return lambda name: materialise_tensor(merged, pool, name, columns[name], torch.float64)


def _from_given(merged: Recipe | Weights, pool: ModelPool) -> Callable[[str, Sequence[Tensor], Tensor], Tensor]:
    """As :func:`reader`, from a tensor of every model and the base that are read already."""
    import torch

    from merging.mixing.arithmetic import weighted_sum

    if isinstance(merged, Weights):
        return lambda name, models, base: merged.tensors[name].double()
    columns = _columns(merged)
    places = {ingredient: pool.with_base.index(pool.find(ingredient)) for ingredient in merged.ingredients}

    def total(name: str, models: Sequence[Tensor], base: Tensor) -> Tensor:
        if name in merged.overrides:
            return merged.overrides[name].double()
        given, terms = (*models, base), merged.terms(columns[name])
        found = [(given[places[ingredient]], coefficient) for ingredient, coefficient in terms]
        return weighted_sum(found, torch.float64) if found else torch.zeros_like(base)

    return total


def _columns(recipe: Recipe) -> dict[str, int]:
    return {name: c for c, component in enumerate(recipe.partition.components) for name in component.tensors}


def _divided(recipe: Recipe, parts: Mapping[str, str]) -> Recipe:
    """The same merge over components none of which has tensors of two parts.

    One that lies in a single part keeps its name; of another, the pieces are called as the parts are, and after their
    component too where that would be two components of one name.
    """
    pieces: list[tuple[int, str, tuple[str, ...]]] = []
    for column, component in enumerate(recipe.partition.components):
        groups: dict[str, list[str]] = {}
        for name in component.tensors:
            groups.setdefault(parts[name], []).append(name)
        pieces += [(column, part if len(groups) > 1 else "", tuple(names)) for part, names in groups.items()]
    owners = [recipe.partition.components[column] for column, _, _ in pieces]
    taken = Counter(part or owner.name for (_, part, _), owner in zip(pieces, owners, strict=True))
    components = []
    for (_, part, names), owner in zip(pieces, owners, strict=True):
        called = owner.name if not part else part if taken[part] == 1 else f"{owner.name} ({part})"
        components.append(replace(owner, name=called, tensors=names))
    table = recipe.coefficients[:, [column for column, _, _ in pieces]]
    return Recipe(recipe.ingredients, Partition(tuple(components), recipe.partition.notes), table, recipe.overrides)
