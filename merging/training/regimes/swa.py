"""Stochastic weight averaging: the iterates of one run's tail, averaged (Izmailov et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import OptionError
from merging.moved import forwarding
from merging.plugins.options import option
from merging.training.regime import Regime, regimes

if TYPE_CHECKING:
    from torch import nn

    from merging.training.hyperparameters import HyperParameters
    from merging.training.trainer import Run


@regimes.register("swa")
@dataclass(frozen=True)
class SwaRegime(Regime):
    """Trains as usual, then on with a high learning rate, and keeps the mean of what it passes through.

    Until the tail the learning rate follows the run's own schedule, but does not fall below that of the tail. The mean
    is kept by ``torch.optim.swa_utils.AveragedModel``; BatchNorm statistics, which belong to no average, are measured
    again at the end, on up to 2,048 training samples without augmentation. Records of epochs tell the accuracy of the
    iterates; the last one that of the mean.
    """

    summary: ClassVar[str] = "the mean of the iterates of each run's tail, at a high learning rate"
    paper: ClassVar[str] = "Izmailov et al. 2018, Algorithm 1, https://arxiv.org/abs/1803.05407"
    formula: ClassVar[str] = (
        "after epoch T₀ = ⌈start·epochs⌉ and every c-th after it: θ_SWA ← θ_SWA + (θ − θ_SWA) / (n + 1)\n"
        "learning rate in the tail: constant r·peak, or in each cycle falling linearly from r·peak to low·peak"
    )
    limits: ClassVar[str] = (
        "A tail whose learning rate is too small averages what is nearly one model; one that is too large leaves the "
        "basin. Weights are averaged, buffers are not. Costs a second copy of the weights; each model of the pool is "
        "one average."
    )

    start: float = option(0.75, "share of the epochs after which the tail begins", low=0.0, high=1.0)
    rate: float = option(0.5, "learning rate of the tail, as a share of the peak", low=0.0)
    every: int = option(1, "epochs from one iterate to the next: the length c of a cycle", low=1)
    tail: str = option("constant", "learning rate of the tail", choices=("constant", "cyclic"))
    low: float = option(0.01, "where a cycle ends, as a share of the peak", low=0.0)

    def check(self, settings: Sequence[HyperParameters], module: nn.Module, steps: Sequence[int]) -> None:
        """Refuses a tail of fewer than two iterates, and iterates that could not differ."""
        del module, steps
        if self.rate == 0:
            raise OptionError("swa with regime.rate=0 does not move in its tail; the paper's is half of the peak")
        if self.tail == "cyclic" and self.low > self.rate:
            raise OptionError(
                f"a cycle of swa falls from regime.rate={self.rate:g} to regime.low={self.low:g}; lower low"
            )
        for one in settings:
            if one.epochs < self._first(one) + self.every:
                raise OptionError(
                    f"swa averages one iterate only: {one.epochs} epochs, the tail after epoch {self._first(one)}, "
                    f"iterates every {self.every}; raise epochs, or lower regime.start"
                )

    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        """Trains one run, whose module holds the mean after the last epoch."""
        from merging.training.averaging import Average

        (run,) = runs
        first, mean = self._first(run.settings), Average(run.module)
        while not run.finished:
            for _ in range(run.steps):
                run.rate = self._rate(run, first)
                run.step()
            epoch = run.done // run.steps
            if epoch >= first and (epoch - first) % self.every == 0:
                mean.add()
            if epoch == run.settings.epochs:
                run.facts |= {"iterates": mean.count, "last_iterate": run.held_out()}
                mean.load()
                run.recalibrate()
            yield

    def _first(self, settings: HyperParameters) -> int:
        return max(1, math.ceil(self.start * settings.epochs))

    def _rate(self, run: Run, first: int) -> float:
        """Of the next step."""
        peak, past = run.settings.learning_rate, run.done - first * run.steps
        if past < 0:
            warm = run.epoch >= run.settings.warmup
            return max(run.scheduled, self.rate * peak) if warm else run.scheduled
        if self.tail == "constant":
            return self.rate * peak
        length = self.every * run.steps
        t = (past % length + 1) / length
        return ((1 - t) * self.rate + t * self.low) * peak


__getattr__ = forwarding(__name__)  # Swa, as the strategy is called, is SwaRegime now
