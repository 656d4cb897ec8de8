"""Changes of weight matrices by their singular values: strong directions against weak ones (MonoSoup)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

RULES = ("energy", "effective")
"""Ways to say how many directions of a change are strong."""


@dataclass(frozen=True)
class Tempering:
    """Weighs the strong and the weak directions of a change Δ = U S Vᵀ: ``λ_high · Δ_high + λ_low · Δ_low``.

    With the k strongest directions in Δ_high, P their share of the energy Σ s²:
    ``ρ = (s_{k+1} / s_1)²``, ``λ_low = ρ + (1 − ρ) · √(1 − P)``, ``λ_high = 1 − λ_low``
    (Abdollahpoorrostam et al. 2026). Convolutions are matrices of ``out × (in · height · width)``.

    Everything is float64 on the CPU in one thread, so that the bits do not depend on the number of threads.

    Attributes:
        rule: ``energy``: k is the smallest number with at least the share ``energy``; ``effective``: the effective
            rank, ``⌈exp(entropy of s / Σ s)⌉``.
        energy: share of the energy, in (0, 1].
        smallest: a change whose norm is a smaller share of the base's norm stays as it is.
    """

    rule: str
    energy: float
    smallest: float

    def edited(self, change: Tensor, base: Tensor) -> Tensor:
        """Gives the change of a tensor, edited; vectors, numbers and small changes stay as they are.

        Args:
            change: float64, any shape.
            base: what it is a change of, of the same shape.
        """
        if not self._applies(change, base):
            return change
        matrix = change.reshape(change.shape[0], -1)
        with _one_thread():
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
            kept, high, low = self.weights(values)
            if kept == len(values):
                return change
            strong = (left[:, :kept] * values[:kept]) @ right[:kept]
        mixed: Tensor = low * matrix + (high - low) * strong
        return mixed.reshape(change.shape)

    def ratio(self, change: Tensor, base: Tensor) -> float:
        """Gives the norm of the edited change as a share of the change's own, from the singular values alone."""
        if not self._applies(change, base):
            return 1.0
        with _one_thread():
            values = torch.linalg.svdvals(change.reshape(change.shape[0], -1))
        kept, high, low = self.weights(values)
        if kept == len(values):
            return 1.0
        return math.hypot(high * float(values[:kept].norm()), low * float(values[kept:].norm())) / float(values.norm())

    def weights(self, values: Tensor) -> tuple[int, float, float]:
        """Gives (number of strong directions, λ_high, λ_low) of singular values, largest first, not all zero.

        Where all directions are strong, the weights are 1 and 0.
        """
        squares = values.square()
        total = float(squares.sum())
        if self.rule == "energy":
            enough = squares.cumsum(0) >= self.energy * total
            kept = int(enough.long().argmax()) + 1 if bool(enough.any()) else len(values)
        else:
            shares = values / values.sum()
            kept = min(math.ceil(math.exp(float(torch.special.entr(shares).sum()))), len(values))
        if kept == len(values):
            return kept, 1.0, 0.0
        ratio = float(values[kept] / values[0]) ** 2
        weak = float(squares[kept:].sum()) / total  # 1 − P, without the digits that a difference would lose
        low = ratio + (1.0 - ratio) * math.sqrt(weak)
        return kept, 1.0 - low, low

    def _applies(self, change: Tensor, base: Tensor) -> bool:
        size = float(change.norm()) if change.ndim > 1 and change.numel() else 0.0
        # What is not finite is left to those who name the file it comes from.
        return 0.0 < size < math.inf and size >= self.smallest * float(base.norm())


@contextmanager
def _one_thread() -> Iterator[None]:
    """LAPACK divides its sums by the number of threads: with another one the last bits are others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
