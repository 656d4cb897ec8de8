"""The Brier score: squared distance of the probabilities from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.objective import Objective
from merging.plugins.registry import objectives

if TYPE_CHECKING:
    from torch import Tensor


@objectives.register("brier")
@dataclass(frozen=True)
class BrierScore(Objective):
    """Minus the multi-class Brier score, so that larger is better; from −2, surely wrong, to 0, surely right."""

    summary: ClassVar[str] = "minus the Brier score of the probabilities"
    paper: ClassVar[str] = "Brier 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2"
    formula: ClassVar[str] = "score = −(1/N) · Σ_s Σ_c (softmax(z_s)_c − [y_s = c])²"
    limits: ClassVar[str] = (
        "A proper score, bounded where the log-likelihood is not: one confident mistake costs 2 at most. Mixes "
        "accuracy and calibration in one number. With two classes it is twice what is often called the Brier score."
    )
    takes: ClassVar[str] = "classes"
    bounds: ClassVar[tuple[float, float] | None] = (-2.0, 0.0)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Minus the squared distance of each sample's probabilities from its label's."""
        from torch.nn import functional as F

        probabilities = logits.float().softmax(dim=1)
        truth = F.one_hot(labels, logits.shape[1]).to(probabilities.dtype)
        return -(probabilities - truth).square().sum(dim=1).clamp(max=2.0)

    def reduce(self, terms: Tensor) -> float:
        """The mean, summed in float64 in the split's order."""
        return float(terms.double().mean())
