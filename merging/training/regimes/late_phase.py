"""Late-phase weights: several copies of a small part, trained on top of a shared rest (von Oswald et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import OptionError
from merging.plugins.options import option
from merging.training.regime import Regime, regimes

if TYPE_CHECKING:
    from torch import nn

    from merging.training.hyperparameters import HyperParameters
    from merging.training.trainer import Run


@regimes.register("late-phase")
@dataclass(frozen=True)
class LatePhase(Regime):
    """K copies of the norm layers and/or the head share the rest from epoch T₀ on; at the end they are averaged.

    Copy k sees every K-th batch and steps at once, with an optimizer of its own; the shared weights step once in K
    batches, along the mean of the K gradients. Running statistics of BatchNorm belong to the copies, are averaged with
    them and measured again at the end. What is looked at after an epoch is the model with the mean of the copies.
    """

    adapters: ClassVar[bool] = False
    summary: ClassVar[str] = "K copies of norm layers or head on a shared rest, averaged at the end"
    paper: ClassVar[str] = "von Oswald et al. 2021, Algorithm 1, https://arxiv.org/abs/2007.12927"
    formula: ClassVar[str] = (
        "for k = 1 … K: φₖ ← optimizer(φₖ, ∇_φ L(θ, φₖ; batch_k));  then θ ← optimizer(θ, mean_k ∇_θ L(θ, φₖ))\n"
        "at the end: φ = mean of the φₖ"
    )
    limits: ClassVar[str] = (
        "The shared weights make one step where plain training makes K: small data sets need more epochs, or fewer "
        "copies. The published program adds the K gradients up; here their mean is taken, so that the learning rate "
        "means the same for every K. Norm layers are the paper's choice; a network without has its head only."
    )

    copies: int = option(10, "K, the copies of the late-phase weights", low=2)
    start: float = option(0.6, "share of the epochs after which the late phase begins (T₀)", low=0.0, high=1.0)
    what: str = option("norms", "which weights there are copies of", choices=("norms", "head", "both"))
    noise: float = option(0.0, "σ of the copies' start, relative to the root mean square of each tensor", low=0.0)

    def check(self, settings: Sequence[HyperParameters], module: nn.Module, steps: Sequence[int]) -> None:
        """There is something to copy, and a batch for each copy."""
        self.names(module)
        for one, count in zip(settings, steps, strict=True):
            if self._first(one) >= one.epochs:
                raise OptionError(
                    f"the late phase begins after epoch {self._first(one)} of {one.epochs}; lower regime.start"
                )
            late = count - count // one.epochs * self._first(one)
            if late < self.copies:
                raise OptionError(
                    f"the late phase has {late} batches for {self.copies} copies; lower regime.copies, or raise epochs"
                )

    def names(self, module: nn.Module) -> list[str]:
        """Names of the late-phase parameters.

        Raises:
            OptionError: the module has no norm layers, or no head.
        """
        from merging.training.parts import head_of, norms_of

        found: list[str] = []
        if self.what != "head":
            found += sorted(norms_of(module))
            if not found:
                raise OptionError(f"{type(module).__name__} has no norm layers to copy; choose `regime.what=head`")
        if self.what != "norms":
            found += sorted(head_of(module) - set(found))
            if not found:
                raise OptionError(f"{type(module).__name__} has no linear layer that could be its head")
        return found

    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        """The module holds the mean of the copies after every epoch of the late phase."""
        from merging.training.late import Copies

        (run,) = runs
        while not run.finished and run.epoch < self._first(run.settings):
            for _ in range(run.steps):
                run.step()
            yield
        copies = Copies(run, self.names(run.module), self.copies, self.noise)
        while not run.finished:
            for _ in range(run.steps):
                copies.step()
            copies.load_mean()
            if run.done // run.steps == run.settings.epochs:
                run.recalibrate()
            yield

    def _first(self, settings: HyperParameters) -> int:
        return math.floor(self.start * settings.epochs)
