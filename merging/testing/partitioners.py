"""What every partitioner promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from merging.errors import PartitionError
from merging.plugins.partitioner import Partitioner
from merging.storage.dtypes import info_of
from merging.testing.fixtures import TinyNet
from merging.testing.plugins import PluginContract
from merging.values.partition import TensorInfo

ODD_NAMES = (
    ["weight"],
    ["1", "2.3"],
    ["a.b.c.d.e.weight", "a", "ä.bias"],
    [".", "..weight", "visual"],
    ["model.visual.x", "classification_head"],
)


class PartitionerContract(PluginContract):
    """Contract of a partitioner. Supply ``plugin``; override ``tensors`` where it only understands certain names.

    Without an override the tensors are those in the class's ``example_tensors`` where it declares that, else those
    of :class:`TinyNet`.
    """

    kind: ClassVar[str] = "partitioner"

    @pytest.fixture
    def tensors(self, plugin: Partitioner) -> Mapping[str, TensorInfo]:
        """Name → (shape, dtype name) of a model that the partitioner is made for."""
        examples: tuple[str, ...] = getattr(type(plugin), "example_tensors", ())
        if examples:
            return {name: ((2, 2), "float32") for name in examples}
        state = TinyNet().state_dict()
        return {name: info_of(t) for name, t in state.items()}

    def test_covers_every_tensor_once(self, plugin: Partitioner, tensors: Mapping[str, TensorInfo]) -> None:
        """Every tensor is in exactly one component."""
        partition = plugin.split(tensors)
        partition.check_covers(tensors)
        owned = [tensor for component in partition.components for tensor in component.tensors]
        assert sorted(owned) == sorted(tensors)
        assert len(set(partition.names)) == len(partition) > 0
        assert all(name.strip() for name in partition.names)

    def test_is_deterministic(self, plugin: Partitioner, tensors: Mapping[str, TensorInfo]) -> None:
        """The same tensors give the same partition."""
        assert plugin.split(tensors) == plugin.split(dict(tensors))

    def test_leaves_marks_to_the_core(self, plugin: Partitioner, tensors: Mapping[str, TensorInfo]) -> None:
        """Inert, constant and frozen are found elsewhere."""
        assert not any(c.inert or c.constant or c.frozen for c in plugin.split(tensors).components)

    def test_does_not_depend_on_the_process(self, plugin: Partitioner, tensors: Mapping[str, TensorInfo]) -> None:
        """The same tensors in another order end up in the same groups, whatever order these have."""
        backwards = dict(reversed(list(tensors.items())))
        groups = {c.name: sorted(c.tensors) for c in plugin.split(tensors).components}
        assert {c.name: sorted(c.tensors) for c in plugin.split(backwards).components} == groups

    @pytest.mark.parametrize("names", ODD_NAMES, ids=lambda names: names[0])
    def test_takes_or_refuses_odd_names(self, plugin: Partitioner, names: list[str]) -> None:
        """Names of another kind are covered, or refused with a clear PartitionError."""
        odd = {name: ((1,), "float32") for name in names}
        try:
            partition = plugin.split(odd)
        except PartitionError:
            return
        partition.check_covers(odd)
