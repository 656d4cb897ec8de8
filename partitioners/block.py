"""Stem, repeated blocks and head as components, and runs of them (:mod:`merging.mixing.blocks` finds them)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from merging.errors import PartitionError
from merging.mixing.blocks import blocks
from merging.plugins.options import option
from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import partitioners
from merging.values.partition import Partition, TensorInfo

if TYPE_CHECKING:
    from torch import nn


@partitioners.register("block")
@dataclass(frozen=True)
class Block(Partitioner):
    """Divides any model into stem, repeated blocks and head, by the names and shapes of its tensors.

    With a model, its own order of definition says what comes first. Where nothing is repeated, every layer is a block.
    ``count`` joins consecutive ones so that the largest component has as few parameters as possible; text towers'
    leftovers and auxiliary heads always share a component with a part that reaches the logits.
    """

    summary: ClassVar[str] = "stem, repeated blocks and head of any model; the option count=N joins them"
    paper: ClassVar[str] = "finer than the block hierarchies of Fassold 2023, §3, https://arxiv.org/abs/2309.08610"
    formula: ClassVar[str] = (
        "stem | b_1 | … | b_n | head; with count N: the N runs of these that minimise max Σ parameters"
    )
    limits: ClassVar[str] = (
        "Names must show the repetition. Without a model, stem and head are told apart by their usual names, and order "
        "by numbers."
    )

    count: int | None = option(None, "join everything into so many consecutive groups of about equal size", low=1)

    def split(self, tensors: Mapping[str, TensorInfo], module: nn.Module | None = None) -> Partition:
        """Makes one component a block, before them the stem, after them the head.

        Raises:
            PartitionError: ``count`` is larger than the number of parts; the largest possible one is named.
        """
        groups = blocks(tensors, module)
        if self.count is None:
            return Partition.of_groups(groups)
        if self.count > len(groups):
            raise PartitionError(
                f"option 'count' of 'block' is {self.count}, but this model has {len(groups)} parts; "
                f"use {len(groups)} at most, or `partitioner=layer`"
            )
        names = list(groups)
        sizes = [sum(prod(tensors[name][0]) for name in group) for group in groups.values()]
        joined: dict[str, list[str]] = {}
        for begin, end in balanced(sizes, self.count):
            name = names[begin] if end - begin == 1 else f"{names[begin]} … {names[end - 1]}"
            joined[name] = [tensor for part in names[begin:end] for tensor in groups[part]]
        return Partition.of_groups(joined)


def balanced(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Divides a sequence into ``count`` consecutive runs, none empty, so that the largest sum is as small as possible.

    Exact (dynamic programming); of equally good divisions, the one whose first runs are shortest.

    >>> balanced([1, 2, 3, 4], 2)
    [(0, 3), (3, 4)]
    """
    n = len(sizes)
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    # best[i]: the smallest largest sum for sizes[i:] in as many runs as have been allowed so far
    best = [ends[n] - ends[i] for i in range(n)]
    choices: list[list[int]] = []
    for runs in range(2, count + 1):
        cuts, values = [0] * n, best[:]
        for i in range(n - runs + 1):
            options = ((max(ends[j] - ends[i], best[j]), j) for j in range(i + 1, n - runs + 2))
            values[i], cuts[i] = min(options)
        best = values
        choices.append(cuts)
    found, begin = [], 0
    for cuts in reversed(choices):
        found.append((begin, cuts[begin]))
        begin = cuts[begin]
    return [*found, (begin, n)]
