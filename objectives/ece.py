"""Expected calibration error: how far confidence is from accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.objective import Objective
from merging.plugins.options import option
from merging.plugins.registry import objectives
from merging.values.outcome import top1

if TYPE_CHECKING:
    from torch import Tensor


@objectives.register("ece")
@dataclass(frozen=True)
class CalibrationError(Objective):
    """Minus the expected calibration error, so that larger is better; 0 where confidence and accuracy agree."""

    summary: ClassVar[str] = "minus the expected calibration error"
    paper: ClassVar[str] = "Guo et al. 2017, §2, https://arxiv.org/abs/1706.04599 (after Naeini et al. 2015)"
    formula: ClassVar[str] = (
        "score = −Σ_b (|B_b|/N) · |acc(B_b) − conf(B_b)|, with samples in bins ((b−1)/M, b/M] of their largest softmax "
        "output"
    )
    limits: ClassVar[str] = (
        "Says nothing of accuracy: a model that answers the frequencies of the classes has no error, so a search by it "
        "alone may give up right answers. The estimate depends on the number of bins and is biased upwards where they "
        "hold few samples."
    )
    takes: ClassVar[str] = "classes"
    decomposable: ClassVar[bool] = False

    bins: int = option(15, "of equal width, from 0 to 1", low=1)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Confidence, and whether the sample is right: ``(N, 2)``."""
        import torch

        confidence = logits.float().softmax(dim=1).amax(dim=1)
        return torch.stack([confidence, top1(logits, labels).to(confidence.dtype)], dim=1)

    def reduce(self, terms: Tensor) -> float:
        """Adds up each bin's gap, weighted by its samples; NaN where the model answers NaN."""
        import torch

        if bool(terms.isnan().any()):
            return float("nan")
        confidence, right = (terms[:, column].contiguous() for column in (0, 1))
        edges = torch.linspace(0, 1, self.bins + 1, dtype=confidence.dtype)[1:-1]
        place = torch.bucketize(confidence, edges)  # a bin holds its upper edge
        sums = torch.zeros(self.bins, dtype=torch.float64).index_add_(0, place, right.double() - confidence.double())
        return -float(sums.abs().sum()) / len(terms)
