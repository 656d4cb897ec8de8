"""Which bits are the model: a float64 sum in row order, zero coefficients skipped, one cast at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from merging.mixing.computed import check_merge
from merging.mixing.variances import bounded, bounded_below
from merging.storage.dtypes import torch_dtype
from merging.storage.pool import ModelPool
from merging.values.partition import TensorInfo
from merging.values.recipe import Ingredient, Recipe

AT_ONCE = 1 << 20
"""Numbers of a tensor that are summed at once where it is written to memory that is there."""


class Source(Protocol):
    """A reader of ingredients' tensors: a pool, or the copy of one that is kept on a device."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name → (shape, dtype name) of every tensor, whether it is averaged or not."""

    @property
    def mixable(self) -> Collection[str]:
        """Names of the tensors that are averaged."""

    def read(self, ingredient: Ingredient, name: str) -> Tensor:
        """Reads one tensor of one ingredient."""


def weighted_sum(terms: Iterable[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """Sums ``Σ coefficient · tensor`` in float64, in order, cast once to ``dtype``.

    ``n`` equal tensors with coefficients ``1/n`` give the tensor back exactly in every dtype narrower than float64.
    A single term with coefficient 1 gives it back in float64 too, signed zeros included.

    Args:
        terms: (tensor, coefficient) pairs, all of one shape, at least one; zeros are left out by the caller.
        dtype: dtype of the result.
    """
    total: Tensor | None = None
    for tensor, coefficient in terms:
        part = tensor.to(torch.float64, copy=True).mul_(coefficient)
        total = part if total is None else total.add_(part)
    if total is None:
        raise ValueError("a sum of no terms has no shape")
    return total.to(dtype)


def elected_mean(changes: Sequence[Tensor]) -> Tensor:
    """The mean of the entries that have the sign of their sum (Yadav et al. 2023, Algorithm 1); zeros do not count.

    Where the sum is zero the positive entries are taken: the paper's majority sign of the whole vector says nothing
    about one entry.

    Args:
        changes: task vectors, all of one shape.
    """
    stacked = torch.stack(list(changes))
    agrees = stacked * torch.where(stacked.sum(0) < 0, -1.0, 1.0) > 0
    return torch.where(agrees, stacked, 0.0).sum(0) / agrees.sum(0).clamp(min=1)


def materialise_tensor(
    recipe: Recipe, pool: Source, name: str, column: int, dtype: torch.dtype | None = None
) -> Tensor:
    """Computes one tensor of a recipe's model; ``column`` is its component's index.

    Integer and boolean tensors come from the first ingredient; overrides replace the sum. ``dtype`` is that of the
    result (default: the pool's), and the sum is cast to it once. Variances keep a tenth of the smallest one.
    """
    if name in recipe.overrides:
        return recipe.overrides[name].to(dtype or recipe.overrides[name].dtype)
    if name not in pool.mixable:
        return pool.read(recipe.ingredients[0], name).clone()
    dtype = dtype or torch_dtype(pool.tensors[name][1])
    terms = recipe.terms(column)
    if not terms:
        return torch.zeros(pool.tensors[name][0], dtype=dtype)
    if bounded(name, (c for _, c in terms)):
        read = [pool.read(ingredient, name) for ingredient, _ in terms]
        exact = weighted_sum(zip(read, (c for _, c in terms), strict=True), torch.float64)
        return bounded_below(exact, read).to(dtype)
    return weighted_sum(((pool.read(ingredient, name), c) for ingredient, c in terms), dtype)


def materialise_into(home: Tensor, recipe: Recipe, pool: Source, name: str, column: int) -> None:
    """Writes what :func:`materialise_tensor` computes into a tensor, a part at a time, so that no copy of it is made.

    Args:
        home: the tensor to write to, of the same shape; in a wider dtype it holds the numbers of the pool's.
        recipe: the merge.
        pool: the models that its ingredients are read from.
        name: name of the tensor, one that is averaged.
        column: its component's index.
    """
    terms = recipe.terms(column)
    plain = terms and name not in recipe.overrides and not bounded(name, (c for _, c in terms))
    if not plain or not home.is_contiguous() or home.numel() <= AT_ONCE:
        home.copy_(materialise_tensor(recipe, pool, name, column))
        return
    flat, dtype = home.view(-1), torch_dtype(pool.tensors[name][1])
    read = [(pool.read(ingredient, name).reshape(-1), coefficient) for ingredient, coefficient in terms]
    for begin in range(0, len(flat), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        flat[part].copy_(weighted_sum(((tensor[part], coefficient) for tensor, coefficient in read), dtype))


def materialise(recipe: Recipe, pool: ModelPool, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Computes the merged model: all of the pool's tensors, in the first ingredient's order, in its dtypes or in one.

    Raises:
        RecipeError: an ingredient is not in the pool.
        RecipeError: its overrides are none of the pool's tensors.
        PartitionError: the recipe's partition does not cover the pool's tensors.
    """
    check_merge(recipe, pool)
    columns = {name: c for c, component in enumerate(recipe.partition.components) for name in component.tensors}
    names = pool.find(recipe.ingredients[0]).tensors
    return {name: materialise_tensor(recipe, pool, name, columns[name], dtype) for name in names}
