"""Top-1 accuracy: what the soups of Wortsman et al. (2022) and Fassold (2023) select by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.objective import Objective
from merging.plugins.registry import objectives
from merging.values.outcome import top1

if TYPE_CHECKING:
    from torch import Tensor


@objectives.register("accuracy")
@dataclass(frozen=True)
class Accuracy(Objective):
    """Share of samples whose largest logit is the label's."""

    summary: ClassVar[str] = "top-1 accuracy"
    paper: ClassVar[str] = "what Wortsman et al. 2022 select models by, https://arxiv.org/abs/2203.05482"
    formula: ClassVar[str] = "score = (1/N) · Σ_s [argmax_c z_sc = y_s], for logits z and labels y of N samples"
    limits: ClassVar[str] = (
        "Moves in steps of 1/N: a search on few samples sees plateaus and ties. Says nothing of calibration, and the "
        "frequent classes decide where the classes are unbalanced."
    )
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    takes: ClassVar[str] = "classes"
    counts_hits: ClassVar[bool] = True

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """1 where the top class is the label, else 0."""
        return top1(logits, labels)

    def reduce(self, terms: Tensor) -> float:
        """Divides right answers by all of them, once and exactly."""
        return int(terms.sum()) / len(terms)
