"""What a strategy is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from merging.plugins.optimizer import Vector
from merging.values.outcome import Decision, Outcome, Solution
from merging.values.partition import Partition
from merging.values.recipe import Merge, Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from merging.plugins.options import Plugin
    from merging.plugins.progress import Progress
    from merging.storage.pool import ModelPool

Path: TypeAlias = Callable[[Vector], Outcome]
"""Mixing factors, one a component of the partition → what that mix scores on the held-out data."""


class Blend(Protocol):
    """What ``problem.blend`` gives: see :class:`merging.forward.blend.Blend`."""

    def gradient(
        self, coefficients: NDArray[np.float64], batch: tuple[Tensor, Tensor], scale: float = 1.0
    ) -> tuple[float, NDArray[np.float64], float]:
        """Cross-entropy of ``scale · logits`` of the mix, its derivative by each coefficient, and by the scale.

        ``coefficients``: shape ``(rows, components)``; ``batch`` as :meth:`Problem.batches` yields them.
        """


class Problem(Protocol):
    """What a strategy is given. Everything it evaluates is counted, journalled and cached at one door."""

    @property
    def pool(self) -> ModelPool:
        """The checkpoints to merge."""

    @property
    def partition(self) -> Partition:
        """The components, one coefficient each; ``partition.active`` are those worth searching."""

    @property
    def generator(self) -> np.random.Generator:
        """Seeded; the only source of randomness a strategy may use."""

    @property
    def progress(self) -> Progress:
        """Where news goes."""

    def single(self, index: int) -> Recipe:
        """Model ``index`` of the pool as it is."""

    def mean(self, indices: Sequence[int]) -> Recipe:
        """The uniform average of some models of the pool."""

    def weights(
        self,
        strategy: Plugin,
        combine: Callable[[str, list[Tensor], Tensor | None], Tensor],
        *,
        base: bool = True,
    ) -> Weights:
        """A merge that no recipe can express.

        ``combine`` takes a tensor's name, it in every model of the pool and in the base (None without one), all
        float64, and returns the merged one. ``base=False``: the base is no ingredient, and None. Integer tensors and
        frozen components come from the first model.
        """

    def evaluate(self, merged: Merge) -> Outcome:
        """The outcome on the held-out data."""

    def rank(self) -> list[tuple[int, Outcome]]:
        """All models of the pool by held-out score, best first; ties in pool order."""

    def exceeds(self, recipe: Recipe, threshold: float) -> Decision:
        """Whether the held-out score is above the threshold; may stop once that is certain."""

    def between(self, incumbent: Recipe, candidate: Recipe, *, mixing: str = "lerp") -> Path:
        """The function λ ↦ outcome of ``λ·incumbent + (1 − λ)·candidate`` per component, mixed in place on the device.

        ``mixing``: ``lerp``, or ``sum`` for λ·A + (1 − λ)·C rounded as the published code does.
        """

    def maximize(
        self,
        function: Callable[[Vector], Outcome],
        *,
        lower: Vector,
        upper: Vector,
        start: Vector,
        budget: int,
        rounded: bool = True,
    ) -> Solution:
        """Searches the box with the optimiser the user chose; the setting ``budget`` replaces the argument.

        ``rounded``: points are rounded to float32 first, so that a recipe can hold the very factors that were tried.
        """

    def logits(self, recipe: Recipe, split: str = "held-out") -> Tensor:
        """Logits of a whole split on the CPU, float32, shape ``(N, classes)``."""

    def score(self, logits: Tensor) -> float:
        """The objective of given held-out logits, such as averaged ones; no model runs, and nothing is counted."""

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split in random order: (model inputs, labels) on the device, ``size`` samples at a time."""

    def gradient(self, recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[float, NDArray[np.float64]]:
        """Cross-entropy of the merged model on a batch, and its derivative by every coefficient of the recipe."""

    def blend(self, rows: Sequence[Recipe]) -> Blend:
        """A few linear merges resident together, to be mixed with coefficients that are learned."""

    def labels(self, split: str = "held-out") -> Tensor:
        """Labels of a whole split on the CPU, int64, shape ``(N,)``."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the data that a strategy may use: ``held-out``, and ``train`` where there is some."""

    def squared_gradients(
        self, recipe: Recipe, split: str, samples: int, *, sampled: bool = True
    ) -> Mapping[str, Tensor]:
        """Mean over samples of ``(∂ log p(y|x) / ∂θ)²`` for every parameter, float64 on the CPU.

        ``samples`` are drawn from the split at random; labels from the model's own predictions, or the data's.
        """

    def live(self, recipe: Recipe) -> nn.Module:
        """The model with the recipe's weights, open to autograd until the next evaluation."""

    def decide(self, **facts: Any) -> None:
        """Journals a decision and shows it; ``accepted=`` says which way it went."""

    def keep(self, recipe: Recipe, outcome: Outcome) -> None:
        """Tells the core the best merge so far: what an interrupted run saves."""
