"""One component a layer: tensors that share everything but the last part of their name (weight, bias, statistics)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import partitioners
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn


@partitioners.register("layer")
@dataclass(frozen=True)
class Layer(Partitioner):
    """Makes a component of each layer: ``block.fc.weight`` and ``block.fc.bias`` are ``block.fc``, for any names."""

    summary: ClassVar[str] = "one component per layer (weight and bias together), for any model"
    paper: ClassVar[str] = "one factor per group of layers: Fassold 2023, §3, https://arxiv.org/abs/2309.08610"
    formula: ClassVar[str] = "one λ per module that owns tensors (weight and bias together)"
    limits: ClassVar[str] = (
        "A ViT-B/32 has about a hundred layers: more than a derivative-free search of 250 evaluations can tell apart."
    )

    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Makes one component a layer, in the order in which the layers first appear."""
        groups: dict[str, list[str]] = {}
        for tensor in tensors:
            groups.setdefault(tensor.rpartition(".")[0] or tensor, []).append(tensor)
        return Partition.of_groups(groups)
