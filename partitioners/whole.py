"""The whole model as one component: one mixing factor, as in plain interpolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import partitioners
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn


@partitioners.register("whole")
@dataclass(frozen=True)
class Whole(Partitioner):
    """Puts all tensors of the model into one component."""

    summary: ClassVar[str] = "the whole model as one component"
    paper: ClassVar[str] = "one factor per group of layers: Fassold 2023, §3, https://arxiv.org/abs/2309.08610"
    formula: ClassVar[str] = "θ = λ · A + (1 − λ) · C with one λ for all tensors"
    limits: ClassVar[str] = (
        "One factor cannot give the backbone and the head different shares; it is the quickest search."
    )

    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Puts every tensor into one component called ``model``."""
        return Partition.of_groups({"model": tensors})
