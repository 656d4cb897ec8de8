"""TIES-Merging: trim small changes, elect a sign, average what agrees with it (Yadav et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.storage.checkpoint import Checkpoint
from merging.values.recipe import Weights

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("ties")
@dataclass(frozen=True)
class Ties(MixStrategy):
    """TIES: θ_0 + λ · disjoint mean of the task vectors, trimmed, over the entries whose sign is the elected one.

    It needs the base and no data, and evaluates nothing.
    """

    label: ClassVar[str] = "TIES"
    summary: ClassVar[str] = "trim small changes, elect a sign, average what agrees"
    paper: ClassVar[str] = "Yadav et al. 2023, Algorithm 1, https://arxiv.org/abs/2306.01708"
    formula: ClassVar[str] = (
        "τ̂_i = the k largest entries of τ_i = θ_i − θ_0 by magnitude; s = sign(Σ_i τ̂_i); "
        "θ = θ_0 + λ · mean of the τ̂_i ≠ 0 whose sign is s"
    )
    limits: ClassVar[str] = (
        "Made for models of different tasks, whose changes conflict; models of one task agree, and trimming then "
        "loses more than it mends. Reads every model twice more to find the magnitude to trim at (scope model). "
        "Costs no evaluation."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"base"})
    gives: ClassVar[str] = "weights"

    density: float = option(0.2, "share of a task vector's entries that is kept", low=0.0, high=1.0)
    scale: float = option(1.0, "λ", low=0.0, high=4.0)
    scope: str = option(
        "model", "the largest entries of the whole model, or of each tensor", choices=("model", "tensor")
    )

    def mix(self, problem: Problem) -> Weights:
        """Makes weights that are computed tensor by tensor; evaluates nothing."""
        import torch

        from merging.mixing.arithmetic import elected_mean

        limits = self._limits(problem) if self.scope == "model" else None

        def combine(name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
            del name
            if base is None:
                raise RuntimeError("the core gives a base where one is needed")
            changes = [model - base for model in models]
            cuts = limits or [smallest_kept(partial(list, [change]), self.density) for change in changes]
            kept = [torch.where(_magnitude(c) >= cut, c, 0.0) for c, cut in zip(changes, cuts, strict=True)]
            return base + self.scale * elected_mean(kept)

        return problem.weights(self, combine)

    def _limits(self, problem: Problem) -> list[float]:
        """For each model, the magnitude of the smallest change that is kept, over all its averaged tensors."""
        pool, found = problem.pool, list[float]()
        names = sorted(pool.mixable)
        problem.progress.stage("measuring the task vectors", len(pool))

        def changes(model: Checkpoint) -> Iterator[Tensor]:
            for name in names:
                yield model.read(name).double() - pool.read(pool.base_ingredient, name).double()

        for checkpoint in pool.checkpoints:
            found.append(smallest_kept(partial(changes, checkpoint), self.density))
            problem.progress.advance()
        return found


def smallest_kept(changes: Callable[[], Iterable[Tensor]], density: float) -> float:
    """The magnitude (float32) of the k-th largest entry of all changes, exactly, in two passes and constant memory.

    Args:
        changes: gives them, one by one; called twice.
        density: k as a share of all entries.

    Returns:
        Infinity where nothing is kept.
    """
    # Bit patterns of positive float32 numbers, read as integers, are ordered as the numbers are: the upper 16 bits
    # are counted first, then the lower ones of those entries that share the upper ones of the k-th.
    upper = np.zeros(1 << 16, dtype=np.int64)
    for change in changes():
        upper += np.bincount(_bits(change) >> 16, minlength=1 << 16)
    keep = round(int(upper.sum()) * density)
    if keep == 0:
        return math.inf
    high, above = _place(upper, keep)
    lower = np.zeros(1 << 16, dtype=np.int64)
    for change in changes():
        bits = _bits(change)
        lower += np.bincount(bits[bits >> 16 == high] & 0xFFFF, minlength=1 << 16)
    low, _ = _place(lower, keep - above)
    return float(np.array([high << 16 | low], dtype=np.uint32).view(np.float32)[0])


def _magnitude(change: Tensor) -> Tensor:
    return change.abs().float()


def _bits(change: Tensor) -> NDArray[np.uint32]:
    return _magnitude(change).contiguous().reshape(-1).numpy().view(np.uint32)


def _place(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin of the ``rank``-th largest entry, and how many lie in bins above it."""
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, rank))
    return len(counts) - 1 - place, int(from_top[place - 1]) if place else 0
