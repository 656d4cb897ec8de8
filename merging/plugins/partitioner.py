"""The interface of partitioners."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.options import Plugin
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Partitioner(Plugin):
    """Divides a model's tensors into components.

    ``example_tensors``: names for the contract test, where it understands only names of one kind.
    """

    example_tensors: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Groups a model's tensors into components.

        Args:
            tensors: name → (shape, dtype name), in the checkpoint's order.
            module: the model, where one is known; merging weights alone needs none.

        Raises:
            PartitionError: the names are not of the kind that this partitioner understands.
        """
