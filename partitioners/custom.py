"""Components by ordered regular expressions: the first that matches a tensor's name takes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from merging.errors import OptionError, PartitionError
from merging.plugins.options import option
from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import partitioners
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn


@partitioners.register("custom")
@dataclass(frozen=True)
class Custom(Partitioner):
    """Divides by ordered patterns, each ``name=regular expression`` (searched anywhere in the tensor's name).

    Raises:
        PartitionError: tensors that no pattern matches (they are listed), or a pattern that takes no tensor.
    """

    summary: ClassVar[str] = "components by ordered regular expressions over tensor names"
    paper: ClassVar[str] = "one factor per group of layers: Fassold 2023, §3, https://arxiv.org/abs/2309.08610"
    formula: ClassVar[str] = (
        "component c holds the tensors whose names its pattern finds; the first pattern that matches wins"
    )
    limits: ClassVar[str] = "Every tensor must be matched: end with a pattern for the rest."
    example_options: ClassVar[Mapping[str, Any]] = MappingProxyType({"patterns": ("weights=weight$", "rest=.*")})

    patterns: tuple[str, ...] = option((), "name=regex, in order; first match takes a tensor (repeat for more)")

    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Makes one component a name, in the order of the patterns; patterns of the same name add up."""
        rules = [_parse(pattern) for pattern in self.patterns]
        groups: dict[str, list[str]] = {name: [] for name, _ in rules}
        uncovered: list[str] = []
        for tensor in tensors:
            name = next((name for name, regex in rules if regex.search(tensor)), None)
            (uncovered if name is None else groups[name]).append(tensor)
        if uncovered:
            raise PartitionError(
                f"{len(uncovered)} tensors match no pattern: {', '.join(uncovered)}; "
                "add a pattern, such as `partitioner.patterns=rest=.*`"
            )
        empty = [name for name, members in groups.items() if not members]
        if empty:
            raise PartitionError(f"no tensor is left for component '{empty[0]}'; check its pattern and the order")
        return Partition.of_groups(groups)


def _parse(pattern: str) -> tuple[str, re.Pattern[str]]:
    name, equals, regex = pattern.partition("=")
    if not equals or not name:
        raise OptionError(f"pattern {pattern!r} has no name; write it as name=regex")
    try:
        return name, re.compile(regex)
    except re.error as error:
        raise OptionError(f"pattern {pattern!r} is not a regular expression: {error}") from None
