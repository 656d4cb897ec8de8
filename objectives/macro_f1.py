"""Macro-F1: every class counts the same, however rare it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.objective import Objective
from merging.plugins.registry import objectives
from merging.values.outcome import answered

if TYPE_CHECKING:
    from torch import Tensor


@objectives.register("macro-f1")
@dataclass(frozen=True)
class MacroF1(Objective):
    """The mean of the classes' F1 scores, over the classes that occur among the labels or the predictions."""

    summary: ClassVar[str] = "mean of the classes' F1 scores"
    paper: ClassVar[str] = (
        "Lewis et al. 1996, https://doi.org/10.1145/243199.243277 (macro-averaging); as in scikit-learn"
    )
    formula: ClassVar[str] = (
        "score = mean over c of 2·TP_c / (2·TP_c + FP_c + FN_c), for the classes c that are a label or a prediction"
    )
    limits: ClassVar[str] = (
        "A class of few samples weighs as much as one of many, so a single sample may move the score far: intervals "
        "are wide where a class is rare. A sample with a NaN among its logits is predicted as no class."
    )
    takes: ClassVar[str] = "classes"
    decomposable: ClassVar[bool] = False

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The predicted class, −1 where the model answers NaN."""
        del labels
        return answered(logits)

    def reduce(self, terms: Tensor, labels: Tensor) -> float:
        """From the counts of labels, predictions and matches of each class."""
        classes = int(max(terms.max(), labels.max())) + 1
        predicted = terms[terms >= 0].bincount(minlength=classes).double()
        matched = labels[terms == labels].bincount(minlength=classes).double()
        both = predicted + labels.bincount(minlength=classes).double()  # 2·TP + FP + FN
        return float((2 * matched[both > 0] / both[both > 0]).mean())
