"""What a strategy is given to learn with: ``problem.slopes``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from merging.values.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Blend(Protocol):
    """Linear merges resident together, mixed with coefficients that are learned: ``problem.slopes.blend(rows)``.

    A run's is a :class:`merging.forward.blend.Blend`.
    """

    def gradient(
        self, coefficients: NDArray[np.float64], batch: tuple[Tensor, Tensor], scale: float = 1.0
    ) -> tuple[float, NDArray[np.float64], float]:
        """Cross-entropy of ``scale · logits`` of the mix, its derivative by each coefficient, and by the scale.

        ``coefficients``: shape ``(rows, components)``; ``batch`` as :meth:`Slopes.batches` yields them.
        """

    def slopes(self, table: Tensor, batch: tuple[Tensor, Tensor], scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of float64 tensors that lie at :attr:`home`, and stay there: nothing waits for the device."""

    @property
    def home(self) -> torch.device:
        """The device of coefficients that are learned without waiting for the model's."""

    @property
    def rows_in(self) -> str:
        """The dtype that the merges are kept in: ``float32``, or ``bfloat16`` where memory is short."""


class Slopes(Protocol):
    """Derivatives, and data for them. For strategies whose ``needs`` hold ``gradients`` or ``per_sample_gradients``."""

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split in random order: (model inputs, labels) on the device, ``size`` samples at a time."""

    def blend(self, rows: Sequence[Recipe]) -> Blend:
        """A few linear merges resident together, to be mixed with coefficients that are learned."""

    def squared_gradients(
        self, recipe: Recipe, split: str, samples: int, *, sampled: bool = True
    ) -> Mapping[str, Tensor]:
        """Mean over samples of ``(∂ log p(y|x) / ∂θ)²`` for every parameter, float64 on the CPU.

        ``samples`` are drawn from the split at random; labels from the model's own predictions, or the data's.
        """

    def live(self, recipe: Recipe) -> nn.Module:
        """The model with the recipe's weights on its device, open to autograd until the next evaluation."""
