"""Merges that no recipe can express, tensor by tensor: computed when a tensor is asked for, never all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from merging.errors import MergingError, RecipeError, StrategyError
from merging.machine import cores
from merging.mixing.blockwise import Blockwise
from merging.mixing.variances import bounded_below, is_variance
from merging.plugins.user_code import article, file_of, kind_of, running
from merging.storage.checkpoint import Checkpoint
from merging.storage.dtypes import dtype_name, is_floating
from merging.storage.pool import ModelPool
from merging.storage.raw import in_dtype
from merging.values.partition import Partition, TensorInfo
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

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
        strategy: name of the strategy whose function it is, for messages.

    Attributes:
        blockwise: the function, where it can merge a block at a time.
        checkpoints: The models and, last, the base that are read.
    """

    def __init__(
        self, pool: ModelPool, partition: Partition, function: Combine, *, base: bool = True, strategy: str = ""
    ) -> None:
        self._pool, self._function, self._strategy = pool, function, strategy
        self.blockwise = function if isinstance(function, Blockwise) else None
        self._base = pool.base if base else None
        self._frozen = {name for c in partition.components if c.frozen for name in c.tensors}
        self.checkpoints = (*pool.checkpoints, *([self._base] if self._base else []))

    def combine(self, name: str, given: Mapping[Checkpoint, Tensor]) -> Tensor:
        """Computes one merged tensor, float64 where it was computed, from the checkpoints' tensors of that name.

        Raises:
            StrategyError: the function failed, or returned something else than a tensor of that shape and kind.
        """
        import torch

        first = given[self._pool.checkpoints[0]]
        if name not in self._pool.mixable or name in self._frozen:
            return first
        # Copies, whatever the dtype: the function may write to them.
        wide = given if self.blockwise else {c: given[c].to(torch.float64, copy=True) for c in self.checkpoints}
        base = wide[self._base] if self._base else None
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(min(threads, cores()))
            with running(f"strategy '{self._strategy}'", self._function, f"on tensor '{name}'", error=StrategyError):
                found = self._function(name, [wide[c] for c in self._pool.checkpoints], base)
        finally:
            torch.set_num_threads(threads)
        said = f"strategy '{self._strategy}' returned"
        merged = checked(found, name, self._pool.tensors[name], said, StrategyError, self.combine)
        if is_variance(name):
            return bounded_below(merged.double(), [given[c].double() for c in self.checkpoints])
        return merged

    def in_blocks(self, name: str) -> Blockwise | None:
        """Finds what merges a tensor a block at a time; none where it is not to be merged, or not by blocks."""
        merged = name in self._pool.mixable and name not in self._frozen and not is_variance(name)
        return self.blockwise if merged else None

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.combine(name, {c: c.read(name) for c in self.checkpoints})
        return in_dtype(tensor, self._pool.tensors[name][1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._pool.tensors)

    def __len__(self) -> int:
        return len(self._pool.tensors)


def checked(
    found: object, name: str, info: TensorInfo, made: str, error: type[MergingError], code: object = None
) -> Tensor:
    """Checks kind and shape of the tensor that stands for one of the pool's, and gives it back on the CPU.

    Args:
        found: what a strategy or a recipe gives for it.
        name: name of the tensor.
        info: its shape and dtype in the pool. A floating-point tensor may have another floating-point dtype.
        made: begins the message, such as "strategy 'x' returned".
        error: is raised.
        code: the function that made it; its file ends the message.
    """
    import torch

    shape, dtype = info
    if not isinstance(found, torch.Tensor):
        raise error(f"{made} {kind_of(found)} for tensor '{name}', which is no tensor{file_of(code)}")
    if found.layout is not torch.strided or found.is_quantized or found.is_meta:
        kind = "meta" if found.is_meta else "quantised" if found.is_quantized else "sparse"
        raise error(f"{made} a {kind} tensor for '{name}'; only plain dense tensors can be written")
    if tuple(found.shape) != tuple(shape):
        raise error(f"{made} shape {list(found.shape)} for tensor '{name}', which has {list(shape)}")
    own = dtype_name(found)
    if own != dtype and not (found.is_floating_point() and is_floating(dtype)):
        raise error(f"{made} {article(own)} tensor for '{name}', which is {dtype}")
    return found.detach().cpu()


def check_merge(merged: Merge, pool: ModelPool) -> None:
    """Checks that a merge gives the pool's tensors, each once and of its shape and kind.

    What is computed on access is checked then.

    Raises:
        StrategyError: weights of other tensors.
        RecipeError: overrides that are none of the model's tensors.
        PartitionError: a recipe whose components do not cover the model.
    """
    if isinstance(merged, Ensemble):
        for member in merged.members:
            check_merge(member, pool)
    elif isinstance(merged, Recipe):
        merged.partition.check_covers(pool.tensors)
        _check_all(merged.overrides, pool, "the recipe's overrides hold", RecipeError)
    elif isinstance(merged, Weights) and not isinstance(merged.tensors, Computed):
        made = f"strategy '{merged.strategy}' returned"
        _check_all(merged.tensors, pool, made, StrategyError)
        lost = [name for name in pool.tensors if name not in merged.tensors]
        if lost:
            raise StrategyError(f"{made} weights without tensor '{lost[0]}' ({len(lost)} such)")


def _check_all(tensors: Mapping[str, Any], pool: ModelPool, made: str, error: type[MergingError]) -> None:
    for name, tensor in tensors.items():
        if name not in pool.tensors:
            raise error(f"{made} tensor '{name}', which the models do not have")
        checked(tensor, name, pool.tensors[name], made, error)
