"""Balanced accuracy: the mean of the classes' accuracies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.objective import Objective
from merging.plugins.registry import objectives
from merging.values.outcome import top1

if TYPE_CHECKING:
    from torch import Tensor


@objectives.register("balanced-accuracy")
@dataclass(frozen=True)
class BalancedAccuracy(Objective):
    """The mean over the classes of the share of their samples that are right: the macro-averaged recall."""

    summary: ClassVar[str] = "mean of the classes' accuracies"
    paper: ClassVar[str] = "Brodersen et al. 2010, https://doi.org/10.1109/ICPR.2010.764"
    formula: ClassVar[str] = (
        "score = mean over c of (1/N_c) · Σ_{s: y_s = c} [argmax z_s = c], for the classes c that have samples"
    )
    limits: ClassVar[str] = (
        "A class of few samples weighs as much as one of many: intervals are wide where a class is rare. Classes "
        "without a sample have no part. What is wrongly predicted as a class does not lower that class's own accuracy; "
        "macro-f1 takes it in."
    )
    takes: ClassVar[str] = "classes"
    decomposable: ClassVar[bool] = False

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """1 where the top class is the label, else 0."""
        return top1(logits, labels)

    def reduce(self, terms: Tensor, labels: Tensor) -> float:
        """Averages the classes' shares of right answers."""
        samples = labels.bincount().double()
        right = labels[terms].bincount(minlength=len(samples)).double()
        return float((right[samples > 0] / samples[samples > 0]).mean())
