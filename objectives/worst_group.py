"""Worst-group accuracy: what a model is worth where it is worth least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.objective import Objective
from merging.plugins.options import option
from merging.plugins.registry import objectives
from merging.values.outcome import top1

if TYPE_CHECKING:
    from torch import Tensor


@objectives.register("worst-group")
@dataclass(frozen=True)
class WorstGroup(Objective):
    """The accuracy on the group of samples where it is lowest; the data name the groups."""

    summary: ClassVar[str] = "top-1 accuracy on the worst group of samples"
    paper: ClassVar[str] = "Sagawa et al. 2020, https://arxiv.org/abs/1911.08731"
    formula: ClassVar[str] = "score = min over g of (1/N_g) · Σ_{s: g_s = g} [argmax z_s = y_s]"
    limits: ClassVar[str] = (
        "The samples of one group decide, and it is the group with the lowest accuracy of several: noisy, and "
        "pessimistic, where groups are small. Every set needs a column that names the groups."
    )
    takes: ClassVar[str] = "classes"
    decomposable: ClassVar[bool] = False

    by_class: bool = option(False, "divide each group by class, as Sagawa et al. do: the group is then both")

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """1 where the top class is the label, else 0."""
        return top1(logits, labels)

    def reduce(self, terms: Tensor, labels: Tensor, groups: Tensor) -> float:
        """Finds the lowest of the groups' shares of right answers."""
        places = groups * (int(labels.max()) + 1) + labels if self.by_class else groups
        samples = places.bincount().double()
        right = places[terms].bincount(minlength=len(samples)).double()
        return float((right[samples > 0] / samples[samples > 0]).min())
