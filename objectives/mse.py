"""Mean squared error, for models that predict numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import TaskError
from merging.plugins.objective import Objective
from merging.plugins.registry import objectives

if TYPE_CHECKING:
    from torch import Tensor


@objectives.register("mse")
@dataclass(frozen=True)
class MeanSquaredError(Objective):
    """Minus the mean squared error, so that larger is better; of vectors, the mean over their numbers."""

    summary: ClassVar[str] = "minus the mean squared error"
    paper: ClassVar[str] = "Gauss 1821, Theoria combinationis observationum erroribus minimis obnoxiae"
    formula: ClassVar[str] = "score = −(1/(N·d)) · Σ_s Σ_k (f(x_s)_k − y_sk)², for outputs and labels of d numbers"
    limits: ClassVar[str] = (
        "For labels that are numbers; of classes, nll and brier score the probabilities. Unbounded: a few outliers "
        "decide. Numbers of different scale should be standardised first, or the largest ones count alone."
    )
    takes: ClassVar[str] = "numbers"

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Minus the mean squared difference of each sample's numbers."""
        import torch

        found, wanted = logits.flatten(1), labels.flatten(1) if labels.ndim > 1 else labels[:, None]
        if found.shape != wanted.shape:
            raise TaskError(
                f"objective 'mse': the model gives {found.shape[1]} numbers a sample, the labels have "
                f"{wanted.shape[1]}; for classes take nll, brier or accuracy"
            )
        exact = torch.float64 if wanted.dtype == torch.float64 else torch.float32
        return -(found.to(exact) - wanted.to(exact)).square().mean(dim=1)

    def reduce(self, terms: Tensor) -> float:
        """The mean, summed in float64 in the split's order."""
        return float(terms.double().mean())
