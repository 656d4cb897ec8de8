"""Mean log-likelihood of the labels: smooth where accuracy is a staircase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.objective import Objective
from merging.plugins.options import option
from merging.plugins.registry import objectives

if TYPE_CHECKING:
    from torch import Tensor


@objectives.register("nll")
@dataclass(frozen=True)
class NegativeLogLikelihood(Objective):
    """Minus the mean cross-entropy (natural logarithm), so that larger is better; never above 0."""

    summary: ClassVar[str] = "minus the mean cross-entropy of the labels"
    paper: ClassVar[str] = "with the temperature of Guo et al. 2017, https://arxiv.org/abs/1706.04599"
    formula: ClassVar[str] = "score = (1/N) · Σ_s log softmax(z_s / T)[y_s], for logits z, labels y and temperature T"
    limits: ClassVar[str] = (
        "Unbounded below: a few confident mistakes outweigh many right answers, and mislabelled samples count much. "
        "Models of different calibration compare fairly only at a temperature that suits them."
    )
    takes: ClassVar[str] = "classes"

    temperature: float = option(1.0, "logits are divided by it before the softmax", low=1e-6)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Minus the cross-entropy of each sample."""
        from torch.nn import functional as F

        return -F.cross_entropy(logits.float() / self.temperature, labels, reduction="none")

    def reduce(self, terms: Tensor) -> float:
        """The mean, summed in float64 in the split's order."""
        return float(terms.double().mean())
