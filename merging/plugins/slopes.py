"""What a strategy is given to learn with: derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class Blend(Protocol):
    """What ``problem.blend`` gives: see :class:`merging.forward.blend.Blend`."""

    def gradient(
        self, coefficients: NDArray[np.float64], batch: tuple[Tensor, Tensor], scale: float = 1.0
    ) -> tuple[float, NDArray[np.float64], float]:
        """Cross-entropy of ``scale · logits`` of the mix, its derivative by each coefficient, and by the scale.

        ``coefficients``: shape ``(rows, components)``; ``batch`` as :meth:`Problem.batches` yields them.
        """
