"""Biases and other vectors in one component, matrices and filters in another."""

from dataclasses import dataclass

import merging
from merging.plugins.registry import partitioners


@partitioners.register("by-kind")
@dataclass(frozen=True)
class ByKind(merging.Partitioner):
    """Divides tensors by their number of dimensions."""

    summary = "matrices, vectors and scalars"

    def split(self, tensors, module=None):
        groups = {"matrices": [], "vectors": [], "scalars": []}
        for name, (shape, _) in tensors.items():
            groups["matrices" if len(shape) > 1 else "vectors" if shape else "scalars"].append(name)
        return merging.Partition.of_groups(groups)  # empty groups are left out
