"""The interface of partitioners."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import PartitionError
from merging.plugins.options import Plugin
from merging.plugins.user_code import file_of, kind_of, named, running
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Partitioner(Plugin):
    """Base of partitioners: frozen dataclasses that divide a model's tensors into components, one factor each.

    Attributes:
        example_tensors: names for the contract test, where it understands only names of one kind.
    """

    example_tensors: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Groups a model's tensors into components; the one method that a partitioner must have.

        Args:
            tensors: name → (shape, dtype name), in the checkpoint's order.
            module: the model, where one is known; merging weights alone needs none.

        Returns:
            The components: every tensor is in one of them and no more.

        Raises:
            PartitionError: the names are not of the kind that this partitioner understands.
        """


def divided(partitioner: Partitioner, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
    """Divides tensors by a partitioner, and checks that each of them is in one component and no more.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        PartitionError: it does not understand the names, misses some, or returns something else.
    """
    who = named("partitioner", partitioner)
    with running(who, partitioner):
        partition = partitioner.split(dict(tensors), module)
        if isinstance(partition, Partition):
            partition.check_covers(tensors)
    if not isinstance(partition, Partition):
        raise PartitionError(f"{who} returned {kind_of(partition)}, not a Partition{file_of(partitioner)}")
    return partition
