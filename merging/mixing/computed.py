"""Merges that no recipe can express, tensor by tensor: computed when a tensor is asked for, never all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.values.partition import Partition

if TYPE_CHECKING:
    from torch import Tensor

Combine: TypeAlias = Callable[[str, list["Tensor"], "Tensor | None"], "Tensor"]
"""A tensor's name, it in every model of the pool and in the base (where there is one), float64 → merged, float64."""


class Computed(Mapping[str, "Tensor"]):
    """The merged tensors of a pool, each computed on access from the models' own.

    Integer and boolean tensors and frozen components come from the first model.

    Args:
        pool: the models; its base is read where there is one.
        partition: says what is frozen.
        function: merges one tensor.
        base: whether it is given the base.
    """

    def __init__(self, pool: ModelPool, partition: Partition, function: Combine, *, base: bool = True) -> None:
        self._pool, self._function = pool, function
        self._base = pool.base if base else None
        self._frozen = {name for c in partition.components if c.frozen for name in c.tensors}
        self.checkpoints = (*pool.checkpoints, *([self._base] if self._base else []))

    def combine(self, name: str, given: Mapping[Checkpoint, Tensor]) -> Tensor:
        """One merged tensor, float64 where it was computed, from the checkpoints' tensors of that name."""
        first = given[self._pool.checkpoints[0]]
        if name not in self._pool.mixable or name in self._frozen:
            return first
        base = given[self._base].double() if self._base else None
        return self._function(name, [given[c].double() for c in self._pool.checkpoints], base)

    def __getitem__(self, name: str) -> Tensor:
        import torch

        tensor = self.combine(name, {c: c.read(name) for c in self.checkpoints})
        return tensor.to(getattr(torch, self._pool.tensors[name][1]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._pool.tensors)

    def __len__(self) -> int:
        return len(self._pool.tensors)
